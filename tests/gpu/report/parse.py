"""What programs print, as figures. Each reader takes (all output, standard output) of a step and
raises Failed or NotRun; ValueError, KeyError, IndexError or TypeError for what it does not know."""

import json
import re

from steps import Failed, NotRun

HASH = re.compile(r"\b[0-9a-f]{32}\b")
REFUSED_BY_SANITIZER = re.compile(
    r".*(?:Device not supported|not supported on this|Unable to find injection|"
    r"Target application terminated before first instrumented).*")


class WithFigures(Failed):
    """A failure that leaves figures behind."""
    def __init__(self, message, figures):
        super().__init__(message)
        self.figures = figures


def gtest(text, _):
    """{"passed", "failed": [names], "skipped": {reason: number}}."""
    passed = len(re.findall(r"^\[       OK \] ", text, re.MULTILINE))
    failed = sorted(set(re.findall(r"^\[  FAILED  \] (\w+\.\w+)", text, re.MULTILINE)))
    skipped = {}
    for reason in re.findall(r": Skipped\n(.*\S)", text):
        skipped[reason.strip()] = skipped.get(reason.strip(), 0) + 1
    running = re.findall(r"^\[ RUN      \] (\S+)", text, re.MULTILINE)
    ended = re.findall(r"^\[ (?:      OK|  FAILED | SKIPPED) +\] (\w+\.\w+)", text, re.MULTILINE)
    figures = {"passed": passed, "failed": failed, "skipped": skipped}
    if running and running[-1] not in ended and running[-1] not in failed:
        figures["unfinished"] = running[-1]
    if failed:
        raise WithFigures(f"{len(failed)} failed: {', '.join(failed)}", figures)
    if not passed and not running:
        raise Failed("no test matches")
    if not passed and skipped:
        raise NotRun("; ".join(skipped))
    for line in re.findall(r"^\[ MEASURED \] (.*)$", text, re.MULTILINE):
        figures.setdefault("seen", []).append(line.strip())
    return figures


def sanitizer(text, out):
    """The same, and no error of compute-sanitizer."""
    refused = REFUSED_BY_SANITIZER.search(text)
    if refused:
        raise NotRun("compute-sanitizer: " + refused.group(0).strip("= "))
    summary = re.search(r"=+ (ERROR SUMMARY|RACECHECK SUMMARY): (.*)", text)
    if not summary:
        raise Failed("compute-sanitizer gave no summary")
    first = re.search(r"=+ (?!COMPUTE-SANITIZER|ERROR SUMMARY|RACECHECK SUMMARY)(\S.*)", text)
    if not re.match(r"0 (errors|hazards)", summary.group(2)):
        raise Failed(f"{summary.group(2)}; first: {first.group(1) if first else 'not printed'}")
    return {**gtest(text, out), "summary": summary.group(2)}


def expected_hash(readme):
    """The hash of the final weights of the quickstart on CPUs: that of the paragraph of seed 1."""
    for paragraph in readme.split("\n\n"):
        found = HASH.search(paragraph)
        if found and "seed 1" in paragraph.lower():
            return found.group(0)
    return None


def quickstart(expected):
    """A reader of `thresher run`: the CPU's final weights, and actors and learner of one mind."""
    def read(text, _):
        final = re.search(r"final weights ([0-9a-f]{32})", text)
        audited = re.search(r"mismatch (\d+) of (\d+) audited tokens", text)
        if not final or not audited:
            raise Failed("the run printed no final weights")
        figures = {
            "final weights": final.group(1), "mismatched": int(audited.group(1)),
            "audited tokens": int(audited.group(2)),
            "pass@1": re.findall(r"held-out pass@1 (\S+)", text)
        }
        if figures["mismatched"]:
            raise WithFigures(f"{audited.group(1)} of {audited.group(2)} tokens differ", figures)
        if expected is None:
            raise WithFigures("configs/README.md names no hash of the CPU's run to compare with",
                              figures)
        if final.group(1) != expected:
            raise WithFigures(f"final weights {final.group(1)}, of the CPU {expected}", figures)
        return figures

    return read


def json_of(_, out):
    """The JSON object that standard output is."""
    return json.loads(out)


def nothing(_, __):
    return {}
