"""Runs whose engines and leaves are computed on GPUs: on the simulated one, with the farm's own
programs (tests/support/cuda_sim)."""

import os
import unittest
import unittest.mock

import farm

ON_GPUS = ("actors.device=cuda", "learner.device=cuda")


class OnGpus(farm.FarmTest):
    # A simulated device is some hundred times slower than the CPU it runs on.
    OVERRIDES = ("supervised.steps=4", "supervised.warmup_steps=1", "supervised.batch=8", "rl.steps=3", "rl.groups=4",
                 "rl.group_size=2", "eval.items=2", "eval.samples=1", "checkpoint.every=3")

    def on_gpus(self, name, *overrides, faults=""):
        simulated = {"THRESHER_BUILD": os.environ["THRESHER_SIMULATED"]}
        with unittest.mock.patch.dict(os.environ, simulated):
            return self.run_farm(name, *overrides, faults=faults)

    def same(self, name, *overrides, faults=""):
        run = self.on_gpus(name, *overrides, faults=faults)
        self.assertEqual(run.hash(), self.reference().hash())
        self.assertEqual(run.summary()["mismatched_tokens"], 0)
        return run

    def test_a_run_on_gpus_ends_with_the_weights_of_one_on_cpus(self):
        run = self.same("gpus", *ON_GPUS)
        self.assertGreater(run.summary()["tokens"]["audited"], 0)
        self.assert_sound(run)
        # Replayed on the CPU.
        replayed = self.command("replay", run.folder, "--random", 10, "--json")
        self.assertEqual(replayed.code, 0, replayed)

    def test_sides_may_differ(self):
        self.same("actors", "actors.device=cuda:0")

    def test_an_offloaded_optimiser_changes_no_bit(self):
        self.same("offloaded", *ON_GPUS, "learner.offload_optimizer=true")

    def test_sixteen_bit_weights_are_rounded_alike_on_both(self):
        half = ("model.dtype=bfloat16", "engine.kernel_set=cpu-fp32-v1")
        on_cpus = self.run_farm("cpus-16", *half)
        on_gpus = self.on_gpus("gpus-16", *half, *ON_GPUS)
        self.assertEqual(on_gpus.hash(), on_cpus.hash())
        self.assertEqual(on_gpus.summary()["mismatched_tokens"], 0)

    def test_actor_and_learner_may_take_turns_on_one(self):
        self.same("colocated", *ON_GPUS, "engine.colocated=true", "actors.count=1")

    def test_killed_processes_change_no_bit(self):
        run = self.same("killed", *ON_GPUS, faults="actor-0:kill@decode=9,learner-0:kill@step=6")
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(self):
        simulated = {"THRESHER_BUILD": os.environ["THRESHER_SIMULATED"]}
        with unittest.mock.patch.dict(os.environ, simulated):
            launched = self.start("missing", "actors.device=cuda:7")
            done = launched.finish()
        self.assertEqual(done.code, 2, done)
        self.assertIn("actors.device: value 'cuda:7'; allowed: cuda:0", done.err)
        self.assertFalse(launched.run.folder.exists())


if __name__ == "__main__":
    unittest.main()
