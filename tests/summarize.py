"""Adds up test results: what failed and why, what was skipped and why, one closing line.

Arguments: --allowed FILE (names that may be skipped in CI, one regular expression a line), then
NAME=FILE for each JUnit file of ctest, and left-behind=TEXT for the check of processes (empty: none).
Exit 0 if nothing failed. In CI (CI=true) a skip that is not allowed counts as a failure.
"""

import argparse
import os
import pathlib
import re
import sys
import xml.etree.ElementTree

OUTPUT_LINES = 40
# Where the reason of a skip stands: GoogleTest's GTEST_SKIP, then Python's unittest.
REASONS = (re.compile(r": Skipped\n(.*\S)"), re.compile(r"skipped ['\"](.*)['\"]"),
           re.compile(r"^SKIPPED?:? *(.*\S)", re.MULTILINE))


class Summary:
    def __init__(self, allowed, in_ci):
        self.allowed, self.in_ci = allowed, in_ci
        self.passed, self.failed, self.skipped = 0, [], []

    def add_case(self, suite, case):
        name = case.get("name") if suite in ("tests", "serial") else f"{suite}:{case.get('name')}"
        output = case.findtext("system-out") or ""
        status, skip = case.get("status"), case.find("skipped")
        if status == "run":
            self.passed += 1
        elif status == "disabled":
            self.add_skip(name, "disabled")
        elif skip is not None and skip.get("message", "").startswith("SKIP_"):
            self.add_skip(name, self.reason(output))
        else:
            # Not run at all (its program is missing, what it depends on failed), or run and failed.
            message = skip.get("message") if skip is not None else f"after {case.get('time')} s"
            self.failed.append((name, message, output))

    @staticmethod
    def reason(output):
        for pattern in REASONS:
            match = pattern.search(output)
            if match:
                return match.group(1).strip()
        return "no reason given"

    def add_skip(self, name, reason):
        if self.in_ci and not any(p.fullmatch(name) for p in self.allowed):
            self.failed.append((name, "skipped, and not listed in tests/allowed_skips.txt", reason))
        else:
            self.skipped.append((name, reason))

    def add_file(self, suite, path):
        try:
            cases = xml.etree.ElementTree.parse(path).getroot().iter("testcase")
        except (OSError, xml.etree.ElementTree.ParseError) as error:
            self.failed.append((suite, "ctest wrote no results", str(error)))
            return
        for case in cases:
            self.add_case(suite, case)

    def add_left_behind(self, text):
        if text:
            self.failed.append(("left-behind", "processes of the build outlived their test", text))
        else:
            self.passed += 1

    def report(self):
        for name, message, output in self.failed:
            print(f"FAILED  {name}: {message}")
            for line in output.rstrip().splitlines()[-OUTPUT_LINES:]:
                print(f"        {line}")
        for name, reason in self.skipped:
            print(f"skipped {name}: {reason}")
        if self.failed:
            print(f"log     {os.environ.get('LOG', '')}")
        closing = f"{self.passed} passed, {len(self.failed)} failed"
        print(closing + (f", {len(self.skipped)} skipped" if self.skipped else ""))
        return 1 if self.failed or not self.passed else 0


def read_allowed(path):
    lines = (line.split("#")[0].strip() for line in pathlib.Path(path).read_text().splitlines())
    return [re.compile(line) for line in lines if line]


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--allowed", required=True)
    parser.add_argument("results", nargs="+")
    options = parser.parse_args(arguments)
    summary = Summary(read_allowed(options.allowed), os.environ.get("CI") == "true")
    for result in options.results:
        name, _, value = result.partition("=")
        if name == "left-behind":
            summary.add_left_behind(value)
        else:
            summary.add_file(name, value)
    return summary.report()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
