"""One run of the study: started, judged, boiled down to a small JSON file, and its folder cleared away."""

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import plan


class Farm:
    """Runs below `out`: runs/NAME while one goes on, results/NAME.json when it is done. A result that is there is
    never made again, unless the study has changed what it is made of. One Farm at a time for a folder."""

    def __init__(self, out, program):
        self.out = pathlib.Path(out).resolve()
        self.program = str(pathlib.Path(program).resolve())
        (self.out / "results").mkdir(parents=True, exist_ok=True)
        (self.out / "runs").mkdir(exist_ok=True)

    def result(self, run):
        """What became of a finished run; None when it has to be made."""
        try:
            found = json.loads((self.out / "results" / f"{run.name}.json").read_text())
        except FileNotFoundError:
            return None
        return found if found["fingerprint"] == run.fingerprint() else None

    def make(self, run):
        """The result of `run`, made if need be."""
        return self.result(run) or self._make(run)

    def _folder(self, name):
        return self.out / "runs" / name

    def _make(self, run):
        folder = self._folder(run.name)
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was cut short
        keys = dict(run.keys)
        if run.start:
            keys["model.init"] = str(newest_checkpoint(self._folder(run.start)))
        command = [self.program, "run", str(plan.BASE), "--dir", str(folder)]
        for key, value in keys.items():
            command += ["--set", f"{key}={value}"]
        began, used = time.monotonic(), children_seconds()
        self._call(run, command)
        wall, cpu = time.monotonic() - began, children_seconds() - used
        result = {"name": run.name, "arm": run.arm, "preset": run.preset, "seed": run.seed, "rate": run.rate,
                  "fingerprint": run.fingerprint(), "keys": run.keys, "judge": run.judge,
                  "final": self.judge(run), "wall_seconds": round(wall, 1), "cpu_seconds": round(cpu, 1),
                  **read_metrics(folder)}
        self._keep(run, result)
        return result

    def judge(self, run):
        """Held-out pass@1 of the run's last checkpoint."""
        asked = [f"--{key}={value}" for key, value in run.judge.items()]
        text = self._call(run, [self.program, "eval", str(self._folder(run.name)), "--k=1", "--temperature=1", *asked])
        return json.loads(text)["pass_at"]["1"]

    def _call(self, run, command):
        with open(self.out / "results" / f"{run.name}.log", "ab") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, check=False)
        if done.returncode != 0:
            sys.exit(f"{run.name}: {' '.join(command)}\nended with {done.returncode}; see {log.name}")
        return done.stdout.decode()

    def _keep(self, run, result):
        path = self.out / "results" / f"{run.name}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(temporary, path)
        folder = self._folder(run.name)
        if run.arm != "checkpoint":  # others begin with those
            shutil.rmtree(folder)
            return
        for part in ("weights", "trajectories", "journal"):
            shutil.rmtree(folder / part, ignore_errors=True)


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def newest_checkpoint(folder):
    return max((folder / "checkpoints").glob("step_*"))


def read_metrics(folder):
    """Tokens spent, and pass@1 along the run over them."""
    generated = trained = mismatched = 0
    points = []
    at_step = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "eval" in entry:
            points.append(entry["eval"])
        elif "phase" in entry:
            trained += entry["trained_tokens"]
            mismatched += entry["mismatched_tokens"]
            if entry["phase"] == "rl":
                generated += round(entry["samples"] * entry["loss_tokens_mean"])
            at_step[entry["step"] + 1] = generated
    curve = [{"tokens": at_step[p["step"]], "pass_at_1": p["pass_at_1"]} for p in points]
    return {"generated_tokens": generated, "trained_tokens": trained, "mismatched_tokens": mismatched, "curve": curve}
