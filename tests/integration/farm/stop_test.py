"""Stopped runs: by Ctrl-C, by a signal at any time, by the death of the launcher; and gone on with."""

import random
import re
import shlex
import signal
import unittest

import farm


class Stopping(farm.FarmTest):
    OVERRIDES = ("rl.steps=40",)

    def start_until(self, name, phase, steps):
        """A run that has committed `steps` steps of the phase."""
        launched = self.start(name)
        done = lambda: sum(line["phase"] == phase for line in launched.run.metrics()) >= steps
        self.wait_until(done, f"{steps} steps of {phase}", launched)
        return launched

    def interrupted(self, name, phase, steps, number=signal.SIGINT):
        """Stops a run in order; returns it and what the launcher said."""
        launched = self.start_until(name, phase, steps)
        farm.kill(launched.process.pid, number)
        result = launched.finish(60)
        self.assertEqual(result.code, 75, f"{result}{self.logs(launched.run)}")
        self.assert_nothing_left()
        self.assertFalse((launched.run.folder / "summary.json").exists())
        return launched.run, result

    def go_on(self, run, result):
        """Types the command that the launcher printed."""
        line = next(l for l in result.err.splitlines() if l.startswith("to go on: "))
        words = shlex.split(line[len("to go on: "):])
        self.assertEqual(words[:2], ["thresher", "run"])
        again = self.command(*words[1:], timeout=farm.LONGEST_RUN_S)
        self.assertEqual(again.code, 0, f"{again}{self.logs(run)}")
        self.assert_result_unchanged(run)

    def assert_result_unchanged(self, run):
        self.assertEqual(run.hash(), self.reference().hash())
        self.assert_sound(run)

    def test_ctrl_c_in_the_supervised_phase(self):
        run, result = self.interrupted("supervised", "supervised", 13)
        saved = re.search(r"stopped; saved: (checkpoints/step_[0-9]+) and the journal", result.err)
        self.assertTrue(saved, result)
        self.assertTrue((run.folder / saved[1] / "MANIFEST.json").exists())
        self.go_on(run, result)

    def test_ctrl_c_in_the_reinforcement_phase(self):
        run, result = self.interrupted("rl", "rl", 2)
        self.assertRegex(result.err, r"stopped; saved: checkpoints/step_0000[3-7]")
        self.go_on(run, result)

    def test_sigterm_before_the_first_step_is_an_orderly_stop_too(self):
        launched = self.start("early")
        self.wait_until(lambda: launched.run.processes("broker"), "a broker", launched)
        farm.kill(launched.process.pid, signal.SIGTERM)
        result = launched.finish(60)
        self.assertEqual(result.code, 75, result)
        self.assertIn("stopped; ", result.err)
        self.assert_nothing_left()
        self.go_on(launched.run, result)

    def test_a_second_ctrl_c_ends_at_once_and_loses_nothing(self):
        launched = self.start_until("twice", "rl", 1)
        farm.kill(launched.process.pid, signal.SIGINT)
        self.wait_until(lambda: "once more ends at once" in self.said(launched), "the answer",
                        timeout=10)
        farm.kill(launched.process.pid, signal.SIGINT)
        result = launched.finish(20)
        self.assertEqual(result.code, 75, result)
        self.assert_nothing_left()
        self.go_on(launched.run, result)

    def said(self, launched):
        return farm.text_of(launched.err)

    def test_a_killed_launcher_takes_everything_with_it(self):
        for name, phase, steps in (("killed-supervised", "supervised", 13), ("killed-rl", "rl", 2)):
            with self.subTest(phase=phase):
                launched = self.start_until(name, phase, steps)
                farm.kill(launched.process.pid)
                launched.finish()
                self.wait_until(lambda: not farm.processes_of(launched.run.folder),
                                "the end of its processes", timeout=5)
                run = self.run_farm(name)
                self.assert_result_unchanged(run)

    def test_a_killed_launcher_of_an_mpi_job_takes_the_ranks_with_it(self):
        launched = self.start("mpi", "learner.ranks=2")
        self.wait_until(lambda: len(launched.run.metrics()) > 5, "some steps", launched)
        farm.kill(launched.process.pid)
        launched.finish()
        self.wait_until(lambda: not farm.processes_of(launched.run.folder),
                        "the end of its processes", timeout=10)

    def test_a_launcher_killed_again_and_again_arrives_nevertheless(self):
        chance, name = random.Random(5), "again"
        for _ in range(5):
            launched = self.start(name)
            before = len(launched.run.metrics())
            wanted = before + chance.randrange(0, 12)
            self.wait_until(lambda: launched.run.processes("broker") and
                            len(launched.run.metrics()) >= wanted or not launched.alive(),
                            "some steps")
            farm.kill(launched.process.pid)
            launched.finish()
            self.wait_until(lambda: not farm.processes_of(launched.run.folder),
                            "the end of its processes", timeout=5)
        self.assert_result_unchanged(self.run_farm(name))

    def test_a_finished_run_is_not_run_again(self):
        run = self.reference()
        journal = (run.folder / "journal" / "000001.log").read_bytes()
        again = self.command(*self.arguments(run.folder, ())[1:])
        self.assertEqual(again.code, 0, again)
        self.assertIn("already finished", again.err)
        self.assertEqual((run.folder / "journal" / "000001.log").read_bytes(), journal)


if __name__ == "__main__":
    unittest.main()
