"""Checkpoints of whole runs: the same bytes however they are written, kept by policy, exported, and gone on with on another
number of ranks."""

import json
import shutil
import signal
import unittest

import farm


def steps_of(run):
    """Steps whose checkpoints are there, ascending."""
    return sorted(int(path.name[len("step_"):]) for path in (run.folder / "checkpoints").iterdir())


def files_of(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def text_to(fraction):
    """Something that `thresher score` reads."""
    return json.dumps({"tokens": [1, *range(5, 5 + fraction)]}) + "\n"


class Writing(farm.FarmTest):
    OVERRIDES = ("checkpoint.keep=100", "checkpoint.every=4", "objective.kl=0.01")

    def test_a_checkpoint_written_in_the_background_is_that_of_its_step(self):
        run = self.run_farm("in-place", "checkpoint.background=false")
        self.assertEqual(run.hash(), self.reference().hash())
        self.assertEqual(steps_of(run), [4, 8, 12, 16, 20, 24, 28, 30, 32, 36])
        self.assertEqual(steps_of(self.reference()), steps_of(run))
        for step in steps_of(run):
            mine, other = (files_of(r.folder / "checkpoints" / f"step_{step:06}") for r in (run, self.reference()))
            self.assertEqual(mine.keys(), other.keys())
            for name in mine.keys() - {"MANIFEST.json", "trainer/state.json"}:
                self.assertEqual(mine[name].read_bytes(), other[name].read_bytes(), f"step {step}: {name}")
            states = [json.loads(files["trainer/state.json"].read_text()) for files in (mine, other)]
            for state in states:
                del state["run_id"]
            self.assertEqual(*states)
        self.assertIn("trainer/reference.safetensors", mine)

    def test_the_time_it_takes_is_told(self):
        lines = [line["learner"] for line in self.reference().metrics()]
        written = [line for line in lines if line["checkpoint_write_ms"] > 0]
        # That of the last step is durable after the last line.
        self.assertGreaterEqual(len(written), 6)
        self.assertTrue(all(line["checkpoint_stall_ms"] >= 0 for line in lines))
        self.assertEqual({line["checkpoint_waits"] for line in lines}, {0})


class Keeping(farm.FarmTest):
    OVERRIDES = ("rl.steps=24", "eval.every=2", "eval.every_items=8", "checkpoint.every=2", "checkpoint.keep=1",
                 "checkpoint.keep_every=10", "checkpoint.keep_best=2")

    def best(self, run):
        """The two best of the evaluated ones, of equal ones the newer."""
        found = []
        for line in run.evaluations():
            round_ = line.get("eval") or line.get("eval_end")
            found.append((round_["pass_at_1"], round_["step"]))
        self.assertEqual(len(found), 13)
        return {step for _, step in sorted(found)[-2:]}

    def check(self, run):
        ends, every = {30, 54}, {10, 20, 30, 40, 50}
        always = ends | every | self.best(run)
        newest = max(set(range(2, 56, 2)) - always)
        self.assertEqual(set(steps_of(run)), always | {newest}, self.best(run))

    def test_the_best_the_newest_and_every_tenth_stay(self):
        self.check(self.reference())
        self.assert_sound(self.reference())

    def test_they_stay_whoever_dies(self):
        run = self.run_farm("deaths", faults="broker:kill@evaluated=5,learner-0:kill@after_report=18")
        self.assertEqual(run.hash(), self.reference().hash())
        self.check(run)


class Exporting(farm.FarmTest):
    OVERRIDES = ("model.dtype=bfloat16", "checkpoint.keep=2")

    def export(self, *words, code=0):
        done = self.command("export", *words)
        self.assertEqual(done.code, code, done)
        return done

    def score(self, model):
        done = self.command("score", model, stdin=text_to(9))
        self.assertEqual(done.code, 0, done)
        return json.loads(done.out)["logprobs"]

    def test_the_folder_is_the_policy(self):
        run = self.reference()
        out = self.scratch / "out"
        done = self.export(run.folder, "--to", out)
        self.assertIn("bfloat16", done.err)
        self.assertEqual(json.loads((out / "config.json").read_text())["torch_dtype"], "bfloat16")
        self.assertNotIn("trainer", [path.name for path in out.iterdir()])
        newest = run.folder / "checkpoints" / f"step_{steps_of(run)[-1]:06}"
        self.assertEqual((out / "model.safetensors").read_bytes(), (newest / "model.safetensors").read_bytes())
        # Outside its run a checkpoint, too, is computed in the kernel set of this machine.
        shutil.copytree(newest, self.scratch / "copy")
        self.assertEqual(self.score(out), self.score(self.scratch / "copy"))
        result = self.command("eval", out, "--task", "countdown", "--set", "task.numbers=2", "--items", 8, "--samples",
                              2, "--max-new-tokens", 16)
        self.assertEqual(result.code, 0, result)

    def test_float32_is_what_the_optimiser_had(self):
        run = self.reference()
        checkpoint = run.folder / "checkpoints" / "step_000030"
        out = self.scratch / "wide"
        self.export(checkpoint, "--to", out, "--dtype", "float32")
        back = self.scratch / "narrow"
        self.export(out, "--to", back, "--dtype", "bfloat16")
        # Rounded again they are the published ones, and before that they were others.
        self.assertEqual((back / "model.safetensors").read_bytes(), (checkpoint / "model.safetensors").read_bytes())
        self.assertNotEqual(self.score(out), self.score(back))

    def test_an_empty_folder_will_do_and_any_other_is_refused(self):
        empty = self.scratch / "empty"
        empty.mkdir()
        self.export(self.reference().folder, "--to", empty)
        before = sorted(path.name for path in empty.iterdir())
        done = self.export(self.reference().folder, "--to", empty, code=2)
        self.assertIn("allowed: a new folder, or an empty one", done.err)
        self.assertEqual(sorted(path.name for path in empty.iterdir()), before)

    def test_usage(self):
        done = self.export(self.reference().folder, "--to", self.scratch / "no", "--dtype", "float16", code=2)
        self.assertIn("--dtype is float16; allowed: float32, bfloat16", done.err)
        done = self.export(self.scratch / "nothing", "--to", self.scratch / "no", code=2)
        self.assertIn("neither a model folder (config.json) nor a run directory", done.err)
        self.assertFalse((self.scratch / "no").exists())

    def test_a_damaged_checkpoint_is_refused_by_file(self):
        copy = self.scratch / "damaged"
        for name in ("model.safetensors", "trainer/optimizer.safetensors", "tokenizer.json", "MANIFEST.json"):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.reference().folder / "checkpoints" / "step_000030", copy)
            data = bytearray((copy / name).read_bytes())
            data[len(data) // 2] ^= 1
            (copy / name).write_bytes(data)
            done = self.export(copy, "--to", self.scratch / "no", code=2)
            self.assertIn(name, done.err)
            self.assertFalse((self.scratch / "no").exists())


class Resuming(farm.FarmTest):
    OVERRIDES = ("rl.steps=40",)

    def stopped_at(self, launched, steps):
        run = launched.run
        self.wait_until(lambda: run.steps_committed() >= steps, f"step {steps}", launched)
        farm.kill(launched.process.pid, signal.SIGINT)
        result = launched.finish(60)
        self.assertEqual(result.code, 75, f"{result}{self.logs(run)}")
        return result

    def resume(self, run, *settings):
        words = [farm.program("thresher"), "run", "--resume", str(run.folder)]
        for setting in settings:
            words += ["--set", setting]
        return farm.Launched(run, words, "")

    def test_on_two_ranks_from_one_and_back(self):
        launched = self.start("ranks")
        run = launched.run
        self.stopped_at(launched, 12)
        self.stopped_at(self.resume(run, "learner.ranks=2", "learner.zero=1"), 36)
        told = self.stopped_at(self.resume(run, "learner.ranks=4", "learner.threads=1"), 46)
        self.assertRegex(told.err, r"to go on: thresher run --resume \S+ --set learner.ranks=4")
        result = self.resume(run, "learner.ranks=1", "learner.zero=0").finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(run)}")
        self.assertEqual(run.hash(), self.reference().hash())
        self.assert_sound(run)

    def test_what_the_results_depend_on_is_refused_by_key(self):
        launched = self.start("changed")
        self.stopped_at(launched, 5)
        before = (launched.run.folder / "config.yaml").read_bytes()
        result = self.resume(launched.run, "rl.groups=4", "checkpoint.keep=7").finish()
        self.assertEqual(result.code, 2, result)
        self.assertIn("rl.groups", result.err)
        self.assertNotIn("checkpoint.keep", result.err, "which may change")
        self.assertEqual((launched.run.folder / "config.yaml").read_bytes(), before)

    def test_usage(self):
        done = self.command("run", "--resume", self.scratch / "nothing")
        self.assertEqual(done.code, 2, done)
        self.assertIn("allowed: a run directory (manifest.json, config.yaml)", done.err)
        self.assertEqual(self.command("run", farm.TINY, "--resume", self.scratch).code, 2)
        done = self.command("run")
        self.assertEqual(done.code, 2)
        self.assertIn("allowed: CONFIG, or --resume RUN", done.err)


if __name__ == "__main__":
    unittest.main()
