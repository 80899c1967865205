"""tests/summarize.py: what counts as passed, failed and skipped."""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import summarize

PASS = '<testcase name="good" time="0.1" status="run"/>'
FAIL = ('<testcase name="bad" time="0.1" status="fail"><failure message=""/>'
        '<system-out>what it said</system-out></testcase>')
SKIP = ('<testcase name="needs_gpu" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
        '<system-out>a.cc:3: Skipped\nno device\n</system-out></testcase>')
MISSING = ('<testcase name="gone" status="notrun"><skipped message="Unable to find executable"/>'
           '<system-out>Unable to find executable: gone</system-out></testcase>')
DISABLED = '<testcase name="off" status="disabled"/>'


class SummarizeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def summarize(self, *cases, ci=False, allowed="", suite="tests", more=()):
        results, skips = self.folder / "results.xml", self.folder / "allowed"
        results.write_text(f"<testsuite>{''.join(cases)}</testsuite>")
        skips.write_text(allowed)
        shown = io.StringIO()
        with mock.patch.dict(os.environ, {"CI": "true" if ci else ""}), contextlib.redirect_stdout(shown):
            status = summarize.main(["--allowed", str(skips), f"{suite}={results}", *more])
        return status, shown.getvalue()

    def closing(self, *cases, **options):
        status, shown = self.summarize(*cases, **options)
        return status, shown.splitlines()[-1]

    def test_all_passed(self):
        self.assertEqual(self.closing(PASS, PASS), (0, "2 passed, 0 failed"))

    def test_failure_is_named_with_its_output(self):
        status, shown = self.summarize(PASS, FAIL)
        self.assertEqual((status, shown.splitlines()[-1]), (1, "1 passed, 1 failed"))
        self.assertIn("FAILED  bad", shown)
        self.assertIn("what it said", shown)

    def test_skip_is_listed_with_its_reason(self):
        status, shown = self.summarize(PASS, SKIP)
        self.assertEqual((status, shown.splitlines()[-1]), (0, "1 passed, 0 failed, 1 skipped"))
        self.assertIn("skipped needs_gpu: no device", shown)

    def test_script_that_skips_says_why(self):
        output = "SKIPPED: no qemu (Debian: qemu-user)"
        case = ('<testcase name="script" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/>'
                f"<system-out>{output}\n</system-out></testcase>")
        self.assertIn("skipped script: no qemu (Debian: qemu-user)", self.summarize(PASS, case)[1])
        tests = pathlib.Path(summarize.__file__).parent
        scripts = [path for path in tests.rglob("*.sh") if "exit 77" in path.read_text()]
        self.assertTrue(scripts)
        for script in scripts:
            self.assertRegex(script.read_text(), r"""(echo|printf) ['\"]SKIPPED: """, script)

    def test_skip_in_ci_fails_unless_it_is_on_the_list(self):
        self.assertEqual(self.closing(PASS, SKIP, ci=True), (1, "1 passed, 1 failed"))
        self.assertEqual(self.closing(PASS, SKIP, ci=True, allowed="# why\nneeds_.*  # no GPU\n"),
                         (0, "1 passed, 0 failed, 1 skipped"))
        self.assertEqual(self.closing(PASS, SKIP, ci=True, allowed="needs"), (1, "1 passed, 1 failed"))

    def test_disabled_is_a_skip(self):
        self.assertEqual(self.closing(PASS, DISABLED, ci=True), (1, "1 passed, 1 failed"))

    def test_missing_program_is_a_failure_not_a_skip(self):
        self.assertEqual(self.closing(PASS, MISSING), (1, "1 passed, 1 failed"))

    def test_missing_or_torn_results_are_a_failure(self):
        self.assertEqual(self.closing(PASS, more=["asan=/nonexistent"]), (1, "1 passed, 1 failed"))
        self.assertEqual(self.closing("<testcase"), (1, "0 passed, 1 failed"))

    def test_nothing_run_is_not_a_pass(self):
        self.assertEqual(self.closing(), (1, "0 passed, 0 failed"))

    def test_process_left_behind_is_a_failure(self):
        self.assertEqual(self.closing(PASS, more=["left-behind="]), (0, "2 passed, 0 failed"))
        self.assertEqual(self.closing(PASS, more=["left-behind=17 (actor)"]), (1, "1 passed, 1 failed"))

    def test_sanitizer_runs_carry_their_name(self):
        _, shown = self.summarize(FAIL, suite="asan")
        self.assertIn("FAILED  asan:bad", shown)


if __name__ == "__main__":
    unittest.main()
