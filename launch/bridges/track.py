#!/usr/bin/env python3
"""Sends the numbers of a run to a tracker, while it goes on or afterwards.

    track.py RUN --to wandb|mlflow|trackio [--project P] [--name N] [--offline] [--once]

Follows RUN/metrics.jsonl, whose names docs/metrics.md defines; `a.b` is sent as `a/b`, a name without a dot as
`run/name`. Sends every line once: what was sent is kept in RUN/tracking/TRACKER.json, written after each line, so
that a second start goes on behind it. Ends when RUN/summary.json is there and every line is sent.
Exit: 0 all sent, 2 usage or a run that is not one, 3 the tracker failed, 75 stopped by a signal.
"""

import argparse
import fcntl
import importlib
import json
import math
import os
import pathlib
import re
import signal
import sys
import time

POLL_S = 1.0
DONE, USAGE, FAILED, STOPPED = 0, 2, 3, 75


class Refused(Exception):
    """What the user has to mend; ends with exit 2."""


class Stopped(Exception):
    """Asked to stop by a signal."""


# ---- the run

def numbers_of(line):
    """{name: number} of one line of metrics.jsonl, without its time and step; what is no finite number is left out."""
    found = {}

    def visit(prefix, values):
        for key, value in values.items():
            if key in ("time", "step"):
                continue
            if isinstance(value, dict):
                visit(f"{prefix}{key}/", value)
            elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                found[prefix + key] = value

    visit("", {key: value for key, value in line.items() if isinstance(value, dict)})
    visit("run/", {key: value for key, value in line.items() if not isinstance(value, dict)})
    return found


def step_of(line):
    """The step at which a line's numbers stand: a committed step's own, an evaluation's number of trained steps."""
    for group in (line, *(value for value in line.values() if isinstance(value, dict))):
        if isinstance(group.get("step"), int):
            return group["step"]
    return None


CONFIG_LINE = re.compile(r"(  )?([A-Za-z_][\w]*):(?: (.*))?")


def read_config(path):
    """{"section.key": value} of a resolved config.yaml: one `key: value` a line, in sections of one level."""
    config, section = {}, ""
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        match = CONFIG_LINE.fullmatch(text)
        if not match:
            raise Refused(f"{path}:{number}: '{text.strip()}' is not 'key: value' as a run's config.yaml has it")
        indent, key, value = match.groups()
        if value is None:
            section = key + "."
            continue
        try:
            value = json.loads(value)
        except ValueError:
            pass  # text without quotes
        config[(section if indent else "") + key] = value
    return config


class Run:
    """A run directory, which others write."""

    def __init__(self, folder):
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        for name in ("manifest.json", "config.yaml"):
            if not (folder / name).is_file():
                raise Refused(f"{folder} is no run: it has no {name}")
        try:
            self.id = json.loads((folder / "manifest.json").read_text())["run_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"{folder}/manifest.json: run_id cannot be read ({error!r})") from None
        self.config = read_config(folder / "config.yaml")

    def finished(self):
        return (self.folder / "summary.json").is_file()

    def lines(self, offset):
        """Yields (line, offset behind it) of each complete line from `offset` on; None for one that is no object."""
        try:
            with self.metrics.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size < offset:
                    raise Refused(f"{self.metrics} has {size} bytes, and {offset} were sent: it is another file now; "
                                  f"remove the tracker's file in {self.folder}/tracking to send this one anew")
                file.seek(offset)
                for text in file:
                    if not text.endswith(b"\n"):
                        return  # still being written, or cut off later
                    offset += len(text)
                    try:
                        line = json.loads(text)
                    except ValueError:
                        line = None
                    yield line if isinstance(line, dict) else None, offset
        except FileNotFoundError:
            return


class State:
    """RUN/tracking/TRACKER.json: what was sent, and under which names. One process at a time holds it."""

    KEYS = {"project": str, "name": str, "offline": bool, "tracker_run": str, "sent_bytes": int, "ended": bool}

    def __init__(self, run, tracker):
        folder = run.folder / "tracking"
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{tracker}.json"
        self.lock = open(folder / f"{tracker}.lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"{self.path}: another process sends this run to {tracker} now") from None
        self.values = self.read() if self.path.exists() else {}

    def read(self):
        try:
            values = json.loads(self.path.read_text())
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise Refused(f"{self.path}: not a JSON object; remove it to send the run anew")
        for key, value in values.items():
            if key not in self.KEYS:
                raise Refused(f"{self.path}: unknown key '{key}'; allowed: {', '.join(self.KEYS)}")
            if type(value) is not self.KEYS[key]:
                raise Refused(f"{self.path}: {key}: {value!r}; allowed: {self.KEYS[key].__name__}")
        return values

    def settle(self, key, asked, default):
        """What was chosen at the first start stays."""
        if key in self.values and asked not in (None, self.values[key]):
            raise Refused(f"{self.path}: {key} is '{self.values[key]}', asked for is '{asked}'; "
                          "remove the file to send the run anew")
        self.values.setdefault(key, default if asked is None else asked)
        return self.values[key]

    def save(self, **values):
        self.values.update(values)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.values) + "\n")
        os.replace(temporary, self.path)


# ---- the trackers: each opens or continues a run, takes numbers by step, and is closed

def package(name, install):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").split(".")[0] != name.split(".")[0]:
            raise
        raise Refused(f"the Python package '{name}' is not there; {sys.executable} -m pip install {install}") from None


class Wandb:
    """Weights & Biases. Its own step only grows, and an evaluation may end later than the steps behind it, so the
    step is a number like others and the axis of all. Offline files lie in RUN/tracking/wandb, for `wandb sync`."""

    def __init__(self, run, state, project, name, offline):
        wandb = package("wandb", "wandb")
        self.run = wandb.init(project=project, name=name, id=run.id, resume="allow", config=run.config,
                              dir=str(run.folder / "tracking"), mode="offline" if offline else "online")
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def send(self, step, seconds, numbers):
        self.run.log({"step": step, "time": seconds, **numbers})

    def close(self, finished):
        self.run.finish(exit_code=0)


class Mlflow:
    """MLflow, at MLFLOW_TRACKING_URI; offline in RUN/tracking/mlflow.db. A run is an MLflow run of the experiment
    `project`; one that is stopped stays RUNNING."""

    MOST_PARAMS, MOST_METRICS, LONGEST = 100, 1000, 250  # of one request; of a parameter's text

    def __init__(self, run, state, project, name, offline):
        mlflow = package("mlflow", "mlflow")
        entities = importlib.import_module("mlflow.entities")
        self.metric = entities.Metric
        if offline:
            mlflow.set_tracking_uri(f"sqlite:///{run.folder.resolve() / 'tracking' / 'mlflow.db'}")
        self.client = mlflow.MlflowClient()
        self.id = state.values.get("tracker_run")
        if self.id is not None:
            return
        experiment = self.client.get_experiment_by_name(project)
        experiment_id = self.client.create_experiment(project) if experiment is None else experiment.experiment_id
        self.id = self.client.create_run(experiment_id, run_name=name,
                                         tags={"thresher.run_id": run.id}).info.run_id
        params = [entities.Param(key, str(value)[:self.LONGEST]) for key, value in run.config.items()]
        for first in range(0, len(params), self.MOST_PARAMS):
            self.client.log_batch(self.id, params=params[first:first + self.MOST_PARAMS])
        state.save(tracker_run=self.id)

    def send(self, step, seconds, numbers):
        metrics = [self.metric(key, float(value), int(seconds * 1000), step) for key, value in numbers.items()]
        for first in range(0, len(metrics), self.MOST_METRICS):
            self.client.log_batch(self.id, metrics=metrics[first:first + self.MOST_METRICS])

    def close(self, finished):
        if finished:
            self.client.set_terminated(self.id)


class Trackio:
    """Trackio. Local unless TRACKIO_SPACE_ID names a space; offline: local in any case."""

    def __init__(self, run, state, project, name, offline):
        if offline:
            os.environ.pop("TRACKIO_SPACE_ID", None)
            os.environ.pop("TRACKIO_SERVER_URL", None)
        self.trackio = package("trackio", "trackio")
        self.trackio.init(project=project, name=name, config=run.config, resume="allow")

    def send(self, step, seconds, numbers):
        self.trackio.log(numbers, step=step)

    def close(self, finished):
        self.trackio.finish()


TRACKERS = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


# ---- the work

class Interrupts:
    """SIGINT and SIGTERM end the waiting at once, and the sending behind the line that is under way."""

    def __init__(self):
        self.asked = self.waiting = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def on_signal(self, number, frame):
        self.asked = True
        if self.waiting:
            raise Stopped

    def check(self):
        if self.asked:
            raise Stopped

    def wait(self, seconds):
        self.waiting = True
        self.check()
        time.sleep(seconds)
        self.waiting = False


def send_lines(run, state, tracker, interrupts):
    """Sends what is there behind what was sent. Returns the number of lines."""
    sent = 0
    for line, offset in run.lines(state.values["sent_bytes"]):
        interrupts.check()
        step = None if line is None else step_of(line)
        if step is None:
            print(f"{run.metrics}: the line that ends at byte {offset} has no step: left out", file=sys.stderr)
        else:
            tracker.send(step, float(line.get("time", 0)), numbers_of(line))
            sent += 1
        state.save(sent_bytes=offset)
    return sent


def follow(run, state, tracker, once, interrupts):
    """Until the run has finished and all is sent; `once`: what is there now. Returns the number of lines."""
    total = 0
    while True:
        finished = run.finished()  # asked before: what was written until then is read behind
        total += send_lines(run, state, tracker, interrupts)
        if finished or once:
            return total
        interrupts.wait(POLL_S)


def send(arguments):
    run = Run(arguments.run)
    state = State(run, arguments.to)
    names = [state.settle("project", arguments.project, "thresher"),
             state.settle("name", arguments.name, run.folder.resolve().name),
             state.settle("offline", arguments.offline or None, False)]
    state.values.setdefault("sent_bytes", 0)
    unsent = next(run.lines(state.values["sent_bytes"]), None)
    if state.values.get("ended") and unsent is None:
        print(f"everything of {run.folder} is in {arguments.to}", file=sys.stderr)
        return DONE
    interrupts = Interrupts()
    tracker = TRACKERS[arguments.to](run, state, *names)
    state.save(ended=False)
    try:
        total = follow(run, state, tracker, arguments.once, interrupts)
    except Stopped:
        tracker.close(finished=False)
        print("stopped; the same command goes on behind what was sent", file=sys.stderr)
        return STOPPED
    tracker.close(finished=run.finished())
    state.save(ended=run.finished())
    print(f"{total} lines of {run.metrics} sent to {arguments.to}", file=sys.stderr)
    return DONE


def main():
    parser = argparse.ArgumentParser(description="Sends the numbers of a run to a tracker.")
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="run directory")
    parser.add_argument("--to", required=True, choices=TRACKERS)
    parser.add_argument("--project", help="default: thresher")
    parser.add_argument("--name", help="of the run there; default: the folder's name")
    parser.add_argument("--offline", action="store_true", help="only into files below RUN, or on this machine")
    parser.add_argument("--once", action="store_true", help="send what is there and end")
    arguments = parser.parse_args()
    try:
        return send(arguments)
    except Refused as refusal:
        print(f"track.py: {refusal}", file=sys.stderr)
        return USAGE
    except Stopped:
        return STOPPED
    except Exception as error:  # whatever the tracker raises
        print(f"track.py: {arguments.to}: {type(error).__name__}: {error}; the same command goes on behind what was "
              "sent", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
