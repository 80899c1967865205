"""Runs that train less than all parameters: those that are not frozen, and adapters, merged for everybody who computes."""

import json
import math
import struct
import unittest

import farm


def tensors(path):
    """name -> (shape, bytes) of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (tensor["shape"], data[8 + length:][slice(*tensor["data_offsets"])]) for name, tensor in header.items()}


def floats(tensor):
    shape, data = tensor
    values = struct.unpack(f"<{math.prod(shape)}f", data)
    return [values[row * shape[1]:(row + 1) * shape[1]] for row in range(shape[0])]


def checkpoint(run, step):
    return run.folder / "checkpoints" / f"step_{step:06}"


def learner(run):
    return [line["learner"] for line in run.metrics()]


class Whole(farm.FarmTest):
    """What holds of each such run."""

    def same(self, name, *overrides, faults=""):
        run = self.run_farm(name, *overrides, faults=faults)
        self.assertEqual(run.hash(), self.reference().hash(), name)
        return run

    def sound(self, run):
        self.assertEqual(run.summary()["mismatched_tokens"], 0)
        self.assert_sound(run)
        replayed = self.command("replay", run.folder, "--random", 20)
        self.assertEqual(replayed.code, 0, replayed)

    def stopped_and_resumed(self, name, steps, *settings):
        launched = self.start(name)
        run = launched.run
        self.wait_until(lambda: run.steps_committed() >= steps, f"step {steps}", launched)
        farm.kill(launched.process.pid, farm.signal.SIGINT)
        result = launched.finish(60)
        self.assertEqual(result.code, 75, f"{result}{self.logs(run)}")
        words = [farm.program("thresher"), "run", "--resume", str(run.folder)]
        for setting in settings:
            words += ["--set", setting]
        return run, farm.Launched(run, words, "").finish()


class Adapters(Whole):
    OVERRIDES = ("lora.rank=4", "lora.alpha=32", "lora.phase=all", "rl.steps=10")

    def test_they_learn_and_everybody_computes_one_policy(self):
        run = self.reference()
        self.sound(run)
        lines = learner(run)
        self.assertLess(sum(line["loss"] for line in lines[25:30]) / 5, lines[0]["loss"] - 0.2)
        # 4 (N + K) for each of seven matrices, beside N K.
        for line in lines:
            self.assertAlmostEqual(line["trained_share"], 4096 / (19328 + 4096), places=9)

    def test_ranks_threads_actors_and_recomputation_change_no_bit(self):
        self.same("two", "learner.ranks=2", "actors.count=3")
        self.same("four", "learner.ranks=4", "learner.threads=1", "learner.recompute_activations=true")

    def test_a_learner_that_dies_goes_on_from_its_checkpoint(self):
        run = self.same("died", faults="learner-0:kill@step=23,learner-0:kill@in_checkpoint=3")
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_they_go_on_on_another_number_of_ranks(self):
        run, result = self.stopped_and_resumed("resumed", 12, "learner.ranks=2")
        self.assertEqual(result.code, 0, f"{result}{self.logs(run)}")
        self.assertEqual(run.hash(), self.reference().hash())

    def test_other_adapters_are_refused_by_key(self):
        for setting in ("lora.rank=8", "lora.alpha=16", "lora.targets=q_proj", "lora.phase=rl", "learner.freeze=model.norm.weight"):
            run, result = self.stopped_and_resumed("changed-" + setting.replace("=", "-"), 5, setting)
            self.assertEqual(result.code, 2, result)
            self.assertIn(setting.split("=")[0], result.err)

    def test_what_is_exported_is_the_base_and_adapters_that_give_the_model(self):
        run = self.reference()
        out = self.scratch / "adapter"
        done = self.command("export", run.folder, "--to", out, "--adapter")
        self.assertEqual(done.code, 0, done)
        config = json.loads((out / "adapter_config.json").read_text())
        self.assertEqual((config["peft_type"], config["r"], config["lora_alpha"], config["use_rslora"]), ("LORA", 4, 32, False))
        self.assertEqual(config["base_model_name_or_path"], str(out / "base"))
        self.assertEqual(config["target_modules"], ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"])
        adapters = tensors(out / "adapter_model.safetensors")
        base, merged = (tensors(folder / "model.safetensors") for folder in (out / "base", checkpoint(run, 40)))
        self.assertEqual(base.keys(), merged.keys())
        moved = 0
        for name in base:
            stem = "base_model.model." + name.removesuffix(".weight")
            if f"{stem}.lora_A.weight" not in adapters:
                self.assertEqual(base[name], merged[name], name)
                continue
            a, b = (floats(adapters.pop(f"{stem}.lora_{which}.weight")) for which in "AB")
            self.assertEqual((len(a), len(b[0])), (4, 4))
            for row, (was, now) in enumerate(zip(floats(base[name]), floats(merged[name]))):
                for column, value in enumerate(now):
                    expected = was[column] + 32 / 4 * sum(b[row][j] * a[j][column] for j in range(4))
                    self.assertLess(abs(value - expected), 1e-5 * (1 + abs(expected)), name)
                moved += was != now
        self.assertEqual(adapters, {}, "adapters of nothing")
        self.assertGreater(moved, 100)
        plain = self.scratch / "merged"
        self.assertEqual(self.command("export", run.folder, "--to", plain).code, 0)
        self.assertEqual(tensors(plain / "model.safetensors"), merged)


class LaterAdapters(Whole):
    """Adapters of the reinforcement phase, on what the supervised phase left."""

    OVERRIDES = ("lora.rank=3", "lora.rank_stabilised=true", "lora.targets=[q_proj, down_proj]", "rl.steps=12",
                 "objective.kl=0.01", "learner.freeze=model.norm.weight")

    def test_they_begin_where_the_supervised_phase_ends(self):
        run = self.reference()
        self.sound(run)
        early, late = (tensors(checkpoint(run, step) / "model.safetensors") for step in (30, 42))
        moved = {name for name in early if early[name] != late[name]}
        self.assertEqual(moved, {f"model.layers.{i}.{part}.weight" for i in range(2) for part in ("self_attn.q_proj", "mlp.down_proj")})
        self.assertFalse((checkpoint(run, 30) / "trainer" / "adapter_model.safetensors").exists())
        base = tensors(checkpoint(run, 42) / "trainer" / "base.safetensors")
        self.assertEqual(base, {name: early[name] for name in moved})
        shares = [line["trained_share"] for line in learner(run)]
        self.assertEqual(len(set(shares[:30])), 1)
        self.assertLess(max(shares[30:]), min(shares[:30]))
        refused = self.command("export", checkpoint(run, 30), "--to", self.scratch / "no", "--adapter")
        self.assertEqual(refused.code, 2, refused)
        self.assertIn("holds none; allowed: a checkpoint of a run with lora.rank", refused.err)

    def test_ranks_and_deaths_change_no_bit(self):
        self.same("ranks", "learner.ranks=2", "learner.threads=1")
        self.same("first", faults="learner-0:kill@step=31")
        self.same("later", faults="learner-0:kill@step=36")

    def test_other_parts_of_a_run_go_with_them(self):
        for name, overrides in (("own", ("objective.preset=ppo",)), ("shared", ("objective.preset=vtrace_impala", "objective.kl=0")),
                                ("sixteen", ("model.dtype=bfloat16", "engine.kernel_set=cpu-bf16dot-v1"))):
            run = self.run_farm(name, *overrides)
            self.sound(run)
            again = self.run_farm(name + "-again", *overrides, "learner.ranks=2", faults="learner-0:kill@step=36")
            self.assertEqual(run.hash(), again.hash(), name)


class Frozen(Whole):
    OVERRIDES = ("learner.freeze=[model.embed_tokens.weight, model.layers.0.*]", "checkpoint.every=1", "checkpoint.keep=100",
                 "supervised.warmup_steps=0")

    def test_they_keep_their_bits_and_the_others_move(self):
        run = self.reference()
        self.sound(run)
        first, last = (tensors(checkpoint(run, step) / "model.safetensors") for step in (1, 36))
        for name in first:
            frozen = name.startswith(("model.embed_tokens.", "model.layers.0."))
            self.assertEqual(first[name] == last[name], frozen, name)
        norms = [value for row in ([struct.unpack("<32f", last["model.layers.0.input_layernorm.weight"][1])]) for value in row]
        self.assertEqual(set(norms), {1.0})
        moments = tensors(checkpoint(run, 36) / "trainer" / "optimizer.safetensors")
        trained = sum(math.prod(shape) for name, (shape, _) in last.items() if not name.startswith(("model.embed_tokens.", "model.layers.0.")))
        self.assertEqual({shape[0] for shape, _ in moments.values()}, {trained})

    def test_ranks_and_deaths_change_no_bit(self):
        self.same("ranks", "learner.ranks=4", "learner.threads=1")
        self.same("died", "learner.ranks=2", faults="learner-0:kill@step=33")

    def test_what_names_nothing_is_refused_with_the_names_there_are(self):
        for freeze, said in (("model.layer.0.*", "'model.layer.0.*' names no parameter; allowed: names and patterns of model.embed_tokens.weight, "),
                             ('"*"', "allowed: what leaves a parameter to train")):
            done = self.command("check", farm.TINY, "--set", f"learner.freeze={freeze}")
            self.assertEqual(done.code, 2, done)
            self.assertIn("learner.freeze: ", done.err)
            self.assertIn(said, done.err)


del Whole  # not a test of its own

if __name__ == "__main__":
    unittest.main()
