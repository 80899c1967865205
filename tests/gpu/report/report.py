"""The command: which pieces run now, how much time each may take, what is kept, the exit code."""

import argparse
import json
import pathlib
import shutil
import sys
import time

import machine
import page
import plan as plans
import state
import steps as running

ROOT = pathlib.Path(__file__).resolve().parents[3]
WRITE = "write"
WRITE_SECONDS = 5  # kept back for the page
OK, SOMETHING_FAILED, USAGE, NO_DEVICE, OUT_OF_TIME = 0, 1, 2, 3, 75
NO_TIME = "no time left"


def arguments(words):
    parser = argparse.ArgumentParser(prog="tests/gpu_report",
                                     description="See tests/gpu/report/README.md.")
    parser.add_argument("--piece",
                        action="append",
                        default=[],
                        metavar="NAME",
                        help="only this piece, anew; may be repeated")
    parser.add_argument("--resume",
                        action="store_true",
                        help="keep what has passed or failed with these sources on this device")
    parser.add_argument("--budget",
                        type=float,
                        default=540,
                        metavar="SECONDS",
                        help="in total; default 540")
    parser.add_argument("--build",
                        type=pathlib.Path,
                        default=ROOT / "build" / "release",
                        metavar="FOLDER")
    parser.add_argument("--folder",
                        type=pathlib.Path,
                        default=ROOT / "build" / "gpu-report",
                        metavar="FOLDER",
                        help="results, logs, models; default build/gpu-report")
    parser.add_argument("--page",
                        type=pathlib.Path,
                        default=ROOT / "docs" / "gpu.md",
                        metavar="FILE")
    parser.add_argument("--programs",
                        type=pathlib.Path,
                        metavar="FILE",
                        help="JSON: other paths of programs, by name (plan.py)")
    options = parser.parse_args(words)
    if options.budget <= 0:
        parser.error("--budget: more than 0 seconds")
    return options, parser


class Report:
    def __init__(self, options, words, clock=time.monotonic):
        self.options, self.clock = options, clock
        programs = json.loads(options.programs.read_text()) if options.programs else {}
        self.deadline = clock() + options.budget
        self.key = machine.source_key(ROOT)
        self.plan = plans.Plan(ROOT, options.build.absolute(), options.folder.absolute(), programs,
                               self.key)
        self.results = state.Results(self.plan.folder / "results.json")
        self.revision = machine.revision(ROOT, self.plan.programs)
        self.command = " ".join(["tests/gpu_report", *words])
        self.device = None

    def say(self, text):
        print(text, flush=True)

    def choose(self, parser):
        """The pieces of this call, in their order. Unknown names end the program with 2."""
        pieces = {piece.name: piece for piece in self.plan.pieces()}
        unknown = [name for name in self.options.piece if name not in (*pieces, WRITE)]
        if unknown:
            parser.error(f"--piece {unknown[0]}; there are: {', '.join((*pieces, WRITE))}")
        return [
            piece for name, piece in pieces.items()
            if not self.options.piece or name in self.options.piece
        ]

    def drop_results(self, chosen):
        """What this call will measure anew."""
        if self.options.piece and not self.options.resume:
            for piece in chosen:
                self.results.forget(piece.name)
        elif not self.options.resume:
            self.results.clear()
        if not self.options.resume and any(piece.name == "quickstart" for piece in chosen):
            shutil.rmtree(self.plan.run, ignore_errors=True)

    def run_piece(self, piece):
        end = min(self.clock() + piece.limit, self.deadline - WRITE_SECONDS)
        for step in piece.steps:
            name = f"{piece.name}/{step.name}"
            if self.results.stands(name, self.key, self.device):
                self.say(f"{name}: {self.results.get(name)['status']} before")
                continue
            result = self.run_step(step, piece, end)
            self.results.put(
                name, {
                    **result, "command": [str(word) for word in step.command],
                    "environment": step.environment, "date": machine.today(), "key": self.key,
                    "device": self.device, "revision": self.revision
                })
            detail = f": {result['detail']}" if result["detail"] else ""
            self.say(f"{name}: {result['status']}, {result['seconds']:.1f} s{detail}")

    def run_step(self, step, piece, end):
        reason = step.absent()
        limit = min(step.limit, end - self.clock())
        if not reason and limit < min(step.least, step.limit):
            reason = f"{NO_TIME} in this call; go on with --resume"
        if reason:
            return {"status": "not run", "seconds": 0.0, "detail": reason, "figures": {}}
        self.say(f"{piece.name}/{step.name} ...")
        return running.execute(step, limit, self.plan.folder / "logs" / piece.name)

    def opened_device(self):
        """What gpu_bench, once built, says of the device. Raises NoDevice where no kernel runs on it."""
        program = self.plan.programs["gpu_bench"]
        if not pathlib.Path(program).exists():
            return
        code, out, everything = machine.output_of([program, "device"], 60)
        if code == NO_DEVICE:
            raise machine.NoDevice(everything.strip().splitlines()[-1])
        if code == 0:
            self.results.put("build/device", self.stamped({"figures": json.loads(out)}))

    def stamped(self, result):
        return {
            "status": "passed", "seconds": 0.0, "detail": "", "command": [], "environment": {},
            "date": machine.today(), "key": self.key, "device": self.device,
            "revision": self.revision, **result
        }

    def write(self):
        found = {
            "command": self.command, "device": self.device,
            "versions": machine.versions(self.plan.programs)
        }
        text = page.generated(found, self.plan.pieces(), self.results)
        page.put(self.options.page, text)
        self.say(f"written: {self.options.page}")

    def exit_code(self, chosen):
        mine = [
            self.results.get(f"{piece.name}/{step.name}") for piece in chosen
            for step in piece.steps
        ]
        if any(result and result["status"] in ("failed", "timed out", "crashed")
               for result in mine):
            return SOMETHING_FAILED
        if any(result and result["detail"].startswith(NO_TIME) for result in mine):
            return OUT_OF_TIME
        return OK

    def run(self, parser):
        chosen = self.choose(parser)
        if self.options.piece == [WRITE]:  # of what there is, wherever it was measured
            if not self.results.steps:
                raise machine.NoDevice("there are no results to write")
            self.device = list(self.results.steps.values())[-1]["device"]
            self.write()
            return OK
        self.device = machine.find_device(self.plan.programs)
        self.drop_results(chosen)
        opened = False
        for piece in chosen:
            if piece.name != "build" and not opened:
                self.opened_device()
                opened = True
            self.run_piece(piece)
        if not self.options.piece or WRITE in self.options.piece:
            self.write()
        return self.exit_code(chosen)


def main(words):
    options, parser = arguments(words)
    try:
        return Report(options, words).run(parser)
    except machine.NoDevice as reason:
        print(f"tests/gpu_report: no GPU to report on: {reason}", file=sys.stderr)
        print("  `launch/thresher doctor` says what this machine has", file=sys.stderr)
        return NO_DEVICE
    except page.NoMarkers as reason:
        print(f"tests/gpu_report: {reason}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("tests/gpu_report: stopped; go on with --resume", file=sys.stderr)
        return OUT_OF_TIME
