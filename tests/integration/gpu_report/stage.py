"""A stage for tests/gpu_report: programs that do what a test wants and note that they were called."""

import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = ROOT / "tests" / "gpu_report"
HASH = "0a56c1709a668ae52b51ee541696a36c"
PAGE = ("# Page\nby hand, above\n<!-- gpu report: begin -->\nold\n<!-- gpu report: end -->\n"
        "by hand, below\n")

# {program: [[words that the command line has, what it does], ...]}; the first that fits.
ACTOR = """#!{python}
import json, os, pathlib, signal, sys, time
here = pathlib.Path({folder!r})
words = sys.argv[1:]
with open(here / "calls", "a") as calls:
    ours = {{k: v for k, v in os.environ.items() if k.startswith("THRESHER_")}}
    calls.write(json.dumps([{name!r}, words, ours]) + "\\n")
for wanted, does in json.loads((here / "parts.json").read_text()).get({name!r}, []):
    if all(any(word in given for given in words) for word in wanted):
        for path in does.get("makes", []):
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(path).write_text("{{}}")
        time.sleep(does.get("seconds", 0))
        print(does.get("out", ""), flush=True)
        print(does.get("log", ""), file=sys.stderr, flush=True)
        if does.get("signal"):
            os.kill(os.getpid(), does["signal"])
        sys.exit(does.get("code", 0))
"""

DEVICE = "NVIDIA H200, 143771 MiB, 580.159.04, 9.0, 1980 MHz"


def gtest_output(passed=3, failed=(), skipped=None, measured=()):
    lines = [
        f"[ RUN      ] Suite.Passes{i}\n[       OK ] Suite.Passes{i} (1 ms)" for i in range(passed)
    ]
    lines += [f"[ RUN      ] {name}\nboom\n[  FAILED  ] {name} (2 ms)" for name in failed]
    lines += [
        f"[ RUN      ] Suite.Skips\nfile.cc:3: Skipped\n{skipped}\n\n[  SKIPPED ] Suite.Skips (0 ms)"
    ] if skipped else []
    lines += [f"[ MEASURED ] {text}" for text in measured]
    return "\n".join(lines + [f"[  FAILED  ] {name}" for name in failed])


def bench_output(*rows):
    return json.dumps({
        "results": [{
            "name": name, "unit": unit, "median": median, "min": median * 0.9, "max": median * 1.1,
            "runs": 15, **rest
        } for name, unit, median, rest in rows]
    })


def run_output(final=HASH, mismatched=0):
    return (f"evaluated 'final'  held-out pass@1 0.393 [0.359, 0.428] over 400 items\n"
            f"mismatch {mismatched} of 310232 audited tokens; staleness 0\nfinal weights {final}\n")


def engine_output(batches):
    row = {"prompt_tokens": 1024, "new_tokens": 33}
    return json.dumps({
        "kernel_set": "cpu-fp32-v1", "weight_bytes": 1e9, "product_flop_per_token": 1e9, "rows": [{
            **row, "batch": batch, "decode_tokens_per_s": {"median": 1000.0 * batch},
            "prefill_tokens_per_s": {"median": 50000.0}
        } for batch in batches]
    })


SANITIZED = gtest_output() + "\n========= {0} SUMMARY: 0 {1}\n"


class Stage:
    """Everything passes, quickly, until a test says otherwise with `play`."""
    def __init__(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.scratch.name)
        self.page = self.folder / "gpu.md"
        self.page.write_text(PAGE)
        self.results = self.folder / "report"
        self.parts = {}
        self.programs = {}
        names = ("bootstrap", "cmake", "git", "nvidia-smi", "nvcc", "python", "compute-sanitizer",
                 "thresher", "gpu_tests", "gpu_learner_tests", "gpu_bench")
        for name in names:
            self.add_program(name)
        self.play("nvidia-smi", out=DEVICE)
        self.play("bootstrap", out="thresher 0.9 (release)")
        self.play("git", "rev-parse", out="0123456789ab")
        self.play("gpu_tests", out=gtest_output())
        self.play("gpu_learner_tests", out=gtest_output())
        self.play("gpu_bench", out=bench_output(("copy", "GB/s", 4000.0, {})))
        self.play("gpu_bench",
                  "device",
                  out=json.dumps({"name": "NVIDIA H200", "multiprocessors": 132}))
        self.play("compute-sanitizer", "memcheck", out=SANITIZED.format("ERROR", "errors"))
        self.play("compute-sanitizer",
                  "racecheck",
                  out=SANITIZED.format("RACECHECK", "hazards displayed (0 errors, 0 warnings)"))
        for batches in ((1, 16, 64), (1, 16), (256, ), (64, )):
            self.play("thresher",
                      "bench",
                      f"{','.join(map(str, batches))}",
                      out=engine_output(batches))
        self.play("thresher", "bench", "1,16,64", out=engine_output((1, 16, 64)))
        self.play("thresher", "run", out=run_output(), makes=[self.run_folder() + "/summary.json"])
        self.play("thresher", "replay", out="300 equal")
        self.play("thresher", "audit", out="sound")
        self.play("python", "peer_generate", code=4, log="No module named 'transformers'")
        for name in ("0.5B", "1.5B", "8B"):
            self.play("python",
                      "random_model",
                      name,
                      makes=[str(self.results / "models" / name / "complete")])

    def run_folder(self):
        sys.path.insert(0, str(ROOT / "tests" / "gpu" / "report"))
        import machine
        return str(self.results / f"quickstart-{machine.source_key(ROOT)}")

    def add_program(self, name):
        path = self.folder / name
        path.write_text(ACTOR.format(python=sys.executable, folder=str(self.folder), name=name))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.programs[name] = str(path)

    def play(self, program, *words, **does):
        """From now on `program`, called with these words among its own, does this."""
        self.parts.setdefault(program, []).insert(0, [list(words), does])

    def remove(self, name):
        pathlib.Path(self.programs[name]).unlink()

    def report(self, *words):
        """The exit code, what was printed, and who was called: [(program, words, environment)]."""
        (self.folder / "parts.json").write_text(json.dumps(self.parts))
        (self.folder / "programs.json").write_text(json.dumps(self.programs))
        calls = self.folder / "calls"
        calls.write_text("")
        done = subprocess.run(
            [
                sys.executable, COMMAND, "--programs", self.folder / "programs.json", "--folder",
                self.results, "--page", self.page, *words
            ],
            capture_output=True,
            text=True,
            timeout=100,
            env={k: v
                 for k, v in os.environ.items() if not k.startswith("THRESHER_")})
        return done.returncode, done.stdout + done.stderr, [
            json.loads(line) for line in calls.read_text().splitlines()
        ]

    def status(self, name):
        return json.loads((self.results / "results.json").read_text())["steps"][name]["status"]

    def detail(self, name):
        return json.loads((self.results / "results.json").read_text())["steps"][name]["detail"]

    def close(self):
        self.scratch.cleanup()
