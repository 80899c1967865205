"""One step: a command with a time limit, and what became of it."""

import dataclasses
import os
import signal
import subprocess
import time
from typing import Callable

GRACE_SECONDS = 5  # between SIGTERM and SIGKILL
TAIL_LINES = 15


class Failed(Exception):
    """What a step asked for does not hold, in one line: raised by `read`."""


class NotRun(Exception):
    """Why a step could not do here what it is for, in one line: raised by `read`."""


@dataclasses.dataclass
class Step:
    """command: words. limit: seconds. read(all output, standard output) gives the figures; it may
    raise Failed or NotRun. absent() says why the step cannot be run here, or nothing."""

    name: str
    command: list
    limit: float
    read: Callable = lambda log, out: {}
    absent: Callable = lambda: ""
    environment: dict = dataclasses.field(default_factory=dict)
    least: float = 2  # with less time left it is not begun
    absent_codes: tuple = ()  # exit codes that say that something is missing here


def tail(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-TAIL_LINES:]


def end_group(process):
    """Ends what the step started: its process group, gently, then not."""
    for number, wait in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGTERM:  # whoever of the group outlived its leader
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return


def execute(step, limit, folder):
    """Runs a step for at most `limit` seconds. {"status", "seconds", "detail", "figures"}; its
    output is left in `folder`, NAME.out and NAME.log (both streams)."""
    folder.mkdir(parents=True, exist_ok=True)
    out_path, log_path = folder / f"{step.name}.out", folder / f"{step.name}.log"
    began = time.monotonic()
    result = {"status": "passed", "seconds": 0.0, "detail": "", "figures": {}}
    with open(out_path, "wb") as out, open(log_path, "wb") as log:
        try:
            process = subprocess.Popen([str(word) for word in step.command],
                                       stdout=out,
                                       stderr=log,
                                       stdin=subprocess.DEVNULL,
                                       start_new_session=True,
                                       env={**os.environ, **step.environment})
        except OSError as error:
            return {**result, "status": "failed", "detail": f"cannot be started: {error}"}
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            end_group(process)
        except BaseException:
            end_group(process)
            raise
    result["seconds"] = round(time.monotonic() - began, 1)
    judge(step, code, limit, out_path.read_text(errors="replace"),
          log_path.read_text(errors="replace"), result)
    return result


def judge(step, code, limit, out, log, result):
    """Fills in what became of the step. Figures are read of one that failed, too: they say how."""
    if code is None:
        result.update(status="timed out", detail=f"after {limit:.0f} s: {last(log, out)}")
    elif code < 0:
        result.update(status="crashed", detail=f"{signal.Signals(-code).name}: {last(log, out)}")
    elif code in step.absent_codes:
        result.update(status="not run", detail=last(log, out))
        return
    elif code != 0:
        result.update(status="failed", detail=f"exit {code}: {last(log, out)}")
    try:
        result["figures"] = step.read(out + log, out)
    except NotRun as reason:
        if result["status"] in ("passed", "failed"):
            result.update(status="not run", detail=str(reason))
    except Failed as failure:
        result["figures"] = getattr(failure, "figures", {})
        if result["status"] in ("passed", "failed"):
            result.update(status="failed", detail=str(failure))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        if result["status"] == "passed":
            result.update(status="failed", detail=f"its output is not understood: {error!r}")


def last(log, out):
    lines = tail(log) or tail(out)
    return lines[-1].strip()[:300] if lines else "it said nothing"
