"""What track.py calls of wandb, mlflow and trackio; each call is appended to the file $CALLS as JSON. A copy of this
file stands in for each of the modules. $FAIL_AT=N: the Nth call that sends numbers raises."""

import json
import os
import pathlib

SENDING = ("log", "log_batch")


def call(name, /, **arguments):
    path = pathlib.Path(os.environ["CALLS"])
    before = path.read_text().splitlines() if path.exists() else []
    if name in SENDING and "metrics" in arguments:
        sent = sum(json.loads(line)["call"] == name and "metrics" in json.loads(line) for line in before)
        if sent + 1 == int(os.environ.get("FAIL_AT", 0)):
            raise ConnectionError("the tracker is gone")
    with path.open("a") as file:
        file.write(json.dumps({"call": name, **arguments}) + "\n")


class Thing:
    """Any object of fields."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


# ---- wandb, trackio

class WandbRun:
    def define_metric(self, name, step_metric=None):
        call("define_metric", name=name, step_metric=step_metric)

    def log(self, metrics):
        call("log", metrics=metrics)

    def finish(self, exit_code):
        call("finish", exit_code=exit_code)


def init(**arguments):
    call("init", **arguments)
    return WandbRun()


def log(metrics, step):
    call("log", metrics=metrics, step=step)


def finish():
    call("finish")


# ---- mlflow

def set_tracking_uri(uri):
    call("set_tracking_uri", uri=uri)


class MlflowClient:
    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        call("create_experiment", name=name)
        return "7"

    def create_run(self, experiment_id, run_name, tags):
        call("create_run", experiment_id=experiment_id, run_name=run_name, tags=tags)
        return Thing(info=Thing(run_id="f00"))

    def log_batch(self, run_id, metrics=(), params=()):
        if metrics:
            call("log_batch", run_id=run_id, metrics=[list(m) for m in metrics])
        else:
            call("log_batch", run_id=run_id, params=[list(p) for p in params])

    def set_terminated(self, run_id):
        call("set_terminated", run_id=run_id)


def Metric(key, value, timestamp, step):
    return key, value, timestamp, step


def Param(key, value):
    return key, value
