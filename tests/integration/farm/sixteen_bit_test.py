"""A run whose published weights are bf16, in a kernel set whose products are bf16 too."""

import json
import struct
import subprocess
import unittest

import farm


class SixteenBitWeights(farm.FarmTest):
    OVERRIDES = ("model.dtype=bfloat16", "engine.kernel_set=cpu-bf16dot-v1")

    def same(self, name, *overrides, faults=""):
        run = self.run_farm(name, *overrides, faults=faults)
        self.assertEqual(run.hash(), self.reference().hash())
        return run

    def test_the_actors_and_the_learner_compute_one_policy(self):
        run = self.reference()
        summary = run.summary()
        self.assertEqual(summary["mismatched_tokens"], 0)
        self.assertGreater(summary["tokens"]["audited"], 0)
        self.assert_sound(run)
        replayed = self.command("replay", run.folder, "--random", 20, "--json")
        self.assertEqual(replayed.code, 0, replayed)
        self.assertEqual(run.json("identity.json")["kernel_set"], "cpu-bf16dot-v1")
        self.assertEqual(run.json("identity.json")["weight_type"], "bfloat16")
        norms = [line["learner"]["gradient_norm"] for line in run.metrics() if line["phase"] == "rl"]
        self.assertTrue(all(norm > 0 for norm in norms), norms)

    def test_actors_ranks_variants_and_recomputation_change_no_bit(self):
        self.same("shape", "actors.count=3", "actors.max_batch=7", "learner.ranks=2",
                  "learner.recompute_activations=true")
        with open("/proc/cpuinfo") as info:
            if " avx2" in info.read():
                self.same("avx2", "engine.kernels=avx2")

    def test_a_learner_that_dies_goes_on_from_the_masters(self):
        run = self.same("died", faults="learner-0:kill@step=23")
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_eval_generate_and_score_compute_as_the_run_did(self):
        run = self.reference()
        checkpoint = sorted((run.folder / "checkpoints").iterdir())[-1]
        self.assertEqual(json.loads((checkpoint / "config.json").read_text())["dtype"], "bfloat16")
        done = self.command("eval", checkpoint, "--items", 4, "--samples", 2)
        self.assertEqual(done.code, 0, done)
        evaluated = json.loads(done.out)
        self.assertEqual(evaluated["kernel_set"], "cpu-bf16dot-v1")
        self.assertEqual(evaluated["weights_hash"], run.summary()["final_state_hash"])
        # Of the final version, replayed by the run's own kernel set; score gives the same bits.
        replayed = self.command("replay", run.folder, "--random", 1000, "--json")
        final = f"0.{int(checkpoint.name.split('_')[1])}"
        lines = [line for line in map(json.loads, replayed.out.splitlines())
                 if line["version"] == final]
        self.assertGreater(len(lines), 20)
        asked = "".join(json.dumps({"tokens": line["tokens"]}) + "\n" for line in lines)
        scored = subprocess.run([farm.program("thresher"), "score", str(checkpoint)], input=asked,
                                capture_output=True, text=True, timeout=60)
        for line, answer in zip(lines, map(json.loads, scored.stdout.splitlines()), strict=True):
            found = [struct.unpack("<I", struct.pack("<f", logprob))[0]
                     for logprob in answer["logprobs"][-len(line["logprob_bits"]):]]
            self.assertEqual(found, line["logprob_bits"])
        widened = self.command("generate", checkpoint, "--prompt", "1", "--json", "--kernel-set",
                               "cpu-fp32-v1")
        self.assertEqual(json.loads(widened.out)["kernel_set"], "cpu-fp32-v1")

    def test_each_kernel_set_is_another_run(self):
        folder = self.reference().folder
        refused = self.start(folder.name, "engine.kernel_set=cpu-fp32-v1").finish()
        self.assertEqual(refused.code, 2, refused)
        self.assertIn("engine.kernel_set", refused.err)
        other = self.run_farm("widened", "engine.kernel_set=cpu-fp32-v1")
        self.assertEqual(other.summary()["mismatched_tokens"], 0)
        self.assertNotEqual(other.hash(), self.reference().hash())

    def test_a_run_that_left_the_choice_to_us_goes_on_with_it(self):
        run = self.run_farm("auto", "engine.kernel_set=auto")
        self.assertNotEqual(run.json("identity.json")["kernel_set"], "auto")
        again = self.start("auto", "engine.kernel_set=auto").finish()
        self.assertEqual(again.code, 0, again)


if __name__ == "__main__":
    unittest.main()
