"""How tests/gpu_report divides its time, by a clock that only the steps move."""

import argparse
import os
import pathlib
import sys
import time
import unittest
from unittest import mock

import stage

sys.path.insert(0, str(stage.ROOT / "tests" / "gpu" / "report"))

import machine  # noqa: E402
import plan  # noqa: E402
import report  # noqa: E402
import steps  # noqa: E402

DEVICE = {"name": "NVIDIA H200", "memory": "1", "driver": "1", "capability": "9.0", "clock": "1"}


class BudgetTest(unittest.TestCase):
    def setUp(self):
        self.stage = stage.Stage()
        self.addCleanup(self.stage.close)
        self.now = 1000.0
        self.given = []  # (step, seconds it was given)
        self.takes = {}  # seconds of a step; others take one
        for patch in (mock.patch.object(steps, "execute", self.execute),
                      mock.patch.object(machine, "find_device", lambda _: DEVICE),
                      mock.patch.object(plan, "default_programs", lambda *_: self.stage.programs),
                      mock.patch.object(report.Report, "say", lambda *_: None),
                      mock.patch.object(report.Report, "opened_device", lambda *_: None)):
            patch.start()
            self.addCleanup(patch.stop)

    def execute(self, step, limit, folder):
        self.given.append((f"{folder.name}/{step.name}", limit))
        wanted = self.takes.get(step.name, 1.0)
        self.now += min(wanted, limit)
        return {
            "status": "passed" if wanted <= limit else "timed out", "seconds": min(wanted, limit),
            "detail": "", "figures": {}
        }

    def report(self, budget, *words):
        options = argparse.Namespace(piece=[word for word in words if word != "--resume"],
                                     budget=budget,
                                     resume="--resume" in words,
                                     build=self.stage.folder,
                                     page=self.stage.page,
                                     folder=self.stage.results,
                                     programs=None)
        self.given = []
        return report.Report(options, words, lambda: self.now).run(argparse.ArgumentParser())

    def test_it_ends_in_time_whatever_its_steps_do(self):
        self.takes = {"programs": 1000, "all": 1000, "run": 1000, "gemm": 1000, "memcheck": 1000}
        began = self.now
        self.report(540)
        self.assertLessEqual(self.now - began, 540 - report.WRITE_SECONDS)

    def test_a_step_has_its_own_limit_that_of_its_piece_and_what_is_left(self):
        self.takes = {"memcheck": 40}
        self.report(540, "sanitizer")
        self.assertEqual(self.given, [("sanitizer/memcheck", 45), ("sanitizer/racecheck", 55)])
        self.takes = {"programs": 250}
        self.report(540, "build")
        self.assertEqual(self.given[1], ("build/tests", 50))  # of the piece's 300
        self.takes = {}
        self.report(30, "kernels")
        self.assertEqual(self.given, [("kernels/all", 25)])

    def test_what_there_was_no_time_for_is_run_by_the_next_call(self):
        self.takes = {"programs": 20, "tests": 20}
        self.assertEqual(self.report(60, "build", "kernels", "engine", "learner"), report.OK)
        self.takes = {"programs": 20, "tests": 30}
        code = self.report(56, "build", "kernels")
        self.assertEqual(code, report.OUT_OF_TIME)
        self.assertEqual([name for name, _ in self.given], ["build/programs", "build/tests"])
        code = self.report(56, "build", "kernels", "--resume")
        self.assertEqual(code, report.OK)
        self.assertEqual([name for name, _ in self.given], ["kernels/all"])

    def test_nothing_is_begun_with_less_than_it_needs(self):
        self.report(report.WRITE_SECONDS + 9, "quickstart")
        self.assertEqual(self.given, [])

    def test_what_timed_out_is_run_again(self):
        self.takes = {"all": 100}
        self.assertEqual(self.report(540, "kernels"), report.SOMETHING_FAILED)
        self.takes = {}
        self.assertEqual(self.report(540, "kernels", "--resume"), report.OK)
        self.assertEqual([name for name, _ in self.given], ["kernels/all"])


class Execution(unittest.TestCase):
    def setUp(self):
        self.stage = stage.Stage()
        self.addCleanup(self.stage.close)

    def run_script(self, text, limit=60.0, **more):
        step = steps.Step("script", [sys.executable, "-c", text], 60, **more)
        return steps.execute(step, limit, self.stage.folder)

    def test_a_step_that_takes_too_long_is_ended_with_all_that_it_started(self):
        pid_file = self.stage.folder / "pid"
        result = self.run_script(
            "import pathlib, subprocess, time\n"
            "child = subprocess.Popen(['sh', '-c', 'trap \"\" TERM; while :; do sleep 0.1; done'])\n"
            f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid)); time.sleep(60)",
            limit=5.0)
        self.assertEqual(result["status"], "timed out")
        pid, deadline = int(pid_file.read_text()), time.monotonic() + 20
        while self.lives(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(self.lives(pid))

    @staticmethod
    def lives(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def test_output_lies_in_the_folder_and_the_last_line_is_the_detail(self):
        result = self.run_script("import sys; print('figures'); sys.exit('what was wrong')")
        self.assertEqual((result["status"], result["detail"]), ("failed", "exit 1: what was wrong"))
        self.assertEqual((self.stage.folder / "script.out").read_text(), "figures\n")
        self.assertEqual((self.stage.folder / "script.log").read_text(), "what was wrong\n")

    def test_a_missing_library_is_not_run(self):
        result = self.run_script("import sys; print('no torch', file=sys.stderr); sys.exit(4)",
                                 absent_codes=(4, ))
        self.assertEqual((result["status"], result["detail"]), ("not run", "no torch"))

    def test_a_program_that_cannot_be_started_is_a_failure(self):
        result = steps.execute(steps.Step("none", [self.stage.folder / "none"], 5), 5,
                               self.stage.folder)
        self.assertEqual(result["status"], "failed")

    def test_the_environment_is_added_to(self):
        result = self.run_script("import os; print(os.environ['PATH'], os.environ['MORE'])",
                                 environment={"MORE": "more"},
                                 read=lambda _, out: {"out": out})
        self.assertEqual(result["figures"]["out"], f"{os.environ['PATH']} more\n")


if __name__ == "__main__":
    unittest.main()
