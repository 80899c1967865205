"""Runs of the real programs, for tests of the whole farm.

THRESHER_BUILD names the build folder. Everything a test makes lies in its scratch folder below
TMPDIR; a process that still has that folder on its command line after a test is a failure.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

SUPPORT = pathlib.Path(__file__).resolve().parent
TINY = SUPPORT / "tiny.yaml"
LONGEST_RUN_S = 400  # a hundred times what a tiny run takes


PROGRAMS = {"thresher": "launch/thresher-cli", "thresher-actor": "actor/thresher-actor",
            "thresher-broker": "broker/thresher-broker", "store-tool": "tests/support/store-tool",
            "peers-tool": "tests/support/peers-tool", "broker-load": "tests/bench/broker/broker_load"}


def program(name):
    """Path of a program of the build."""
    return str(pathlib.Path(os.environ["THRESHER_BUILD"]) / PROGRAMS[name])


def environment(faults=""):
    env = {k: v for k, v in os.environ.items() if not k.startswith("THRESHER_")}
    if faults:
        env["THRESHER_FAULT"] = faults
    return env


class Result:
    """How a command ended: `code`, `out`, `err`."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __str__(self):
        return f"exit {self.code}\n--- stdout\n{self.out[-3000:]}\n--- stderr\n{self.err[-3000:]}"


def processes_of(folder):
    """pid -> arguments of every live process that names `folder` or something in it."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        arguments = line.split("\0")
        if any(str(folder) in argument for argument in arguments):
            found[int(entry.name)] = arguments[:-1]
    return found


def kill(pid, number=signal.SIGKILL):
    """Sends a signal to a process that a test started; one that is gone is as good as killed."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


class Run:
    """One run directory and what can be asked of it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def json(self, name):
        return json.loads((self.folder / name).read_text())

    def summary(self):
        return self.json("summary.json")

    def hash(self):
        return self.summary()["final"]["hash"]

    def lines(self, name):
        """A file of one JSON object a line; a last line that is still being written is left out."""
        path = self.folder / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def metrics(self):
        """The lines of committed steps."""
        return [line for line in self.lines("metrics.jsonl") if "step" in line]

    def evaluations(self):
        """The lines of evaluation rounds."""
        return [line for line in self.lines("metrics.jsonl") if "step" not in line]

    def events(self, kind=None):
        return [e for e in self.lines("events.jsonl") if kind in (None, e["event"])]

    def steps_committed(self):
        """Steps of the lineage that the broker has told of; those that are trained again count once."""
        return max((line["step"] + 1 for line in self.metrics()), default=0)

    def log(self, name):
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self, role):
        """Pids of this run's processes of one program: "actor", "broker", "learner"."""
        return sorted(pid for pid, arguments in processes_of(self.folder).items()
                      if str(self.folder) in arguments and
                      os.path.basename(arguments[0]) == f"thresher-{role}")

    def http(self, path="/status.json", token=None, timeout=5):
        """(status code, text) of the broker's HTTP; `token` None: the run's own, "": none."""
        address = self.json("rendezvous.json")["http"]
        if token is None:
            token = (self.folder / "token").read_text().strip()
        request = urllib.request.Request(f"http://{address}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self):
        """The live status, or None while there is no broker."""
        try:
            code, text = self.http()
        except (OSError, ValueError):
            return None
        return json.loads(text) if code == 200 else None


def text_of(file):
    """What a process wrote into an open temporary file so far."""
    return os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace")


class Launched:
    """A `thresher run` that is going on."""

    def __init__(self, run, arguments, faults):
        self.run = run
        self.out = tempfile.TemporaryFile(dir=run.folder.parent)
        self.err = tempfile.TemporaryFile(dir=run.folder.parent)
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=self.out,
                                        stderr=self.err, env=environment(faults),
                                        cwd=run.folder.parent)

    def alive(self):
        return self.process.poll() is None

    def finish(self, timeout=LONGEST_RUN_S):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "none: still running"
        texts = [text_of(file) for file in (self.out, self.err)]
        self.out.close()
        self.err.close()
        return Result(code, *texts)


class FarmTest(unittest.TestCase):
    """Scratch folder of the class, a reference run made once, and what every test must leave."""

    OVERRIDES = ()  # of the reference run and of every other of the class
    longMessage = True

    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="farm-"))
        cls.reference_run = None

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def tearDown(self):
        self.assert_nothing_left()

    def reference(self):
        """The undisturbed run of this class: two actors, one learner rank."""
        if type(self).reference_run is None:
            type(self).reference_run = self.run_farm("reference")
        return type(self).reference_run

    def arguments(self, folder, overrides, config=TINY):
        command = [program("thresher"), "run", str(config), "--dir", str(folder)]
        for text in (*self.OVERRIDES, *overrides):
            command += ["--set", text]
        return command

    def start(self, name, *overrides, faults="", config=TINY):
        run = Run(self.scratch / name)
        return Launched(run, self.arguments(run.folder, overrides, config), faults)

    def run_farm(self, name, *overrides, faults="", code=0):
        """Runs to the end and demands the exit code."""
        launched = self.start(name, *overrides, faults=faults)
        result = launched.finish()
        run = launched.run
        run.result = result
        self.assertEqual(result.code, code, f"{name}: {result}\n{self.logs(run)}")
        return run

    def prepare(self, name, *overrides):
        """A run directory for processes that the test starts itself: a run that was stopped at once."""
        launched = self.start(name, *overrides)
        self.wait_until(lambda: launched.run.processes("broker"), "a broker", launched)
        kill(launched.process.pid, signal.SIGTERM)
        result = launched.finish(60)
        self.assertEqual(result.code, 75, f"{result}{self.logs(launched.run)}")
        return launched.run

    def command(self, *words, timeout=60, stdin=""):
        """Any sub-command of thresher."""
        done = subprocess.run([program("thresher"), *map(str, words)], capture_output=True,
                              text=True, timeout=timeout, env=environment(), cwd=self.scratch,
                              input=stdin)
        return Result(done.returncode, done.stdout, done.stderr)

    def store_tool(self, *words):
        done = subprocess.run([program("store-tool"), *map(str, words)], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def copy_of(self, run, name):
        """A copy of a run directory; its files are links, which what writes them anew cuts."""
        target = self.scratch / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run.folder, target, copy_function=os.link)
        return Run(target)

    def logs(self, run):
        """The ends of the logs, for messages."""
        return "".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}\n"
                       for path in sorted((run.folder / "logs").glob("*.log")))

    def wait_until(self, condition, what, launched=None, timeout=60):
        """Polls `condition` until it gives something true, which is returned."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            if launched is not None and not launched.alive():
                self.fail(f"the run ended before {what}: {launched.finish()}")
            time.sleep(0.02)
        self.fail(f"waited {timeout} s for {what}")

    def assert_sound(self, run):
        audit = self.command("audit", run.folder, "--json")
        self.assertEqual(audit.code, 0, audit)
        report = json.loads(audit.out)
        self.assertTrue(report["sound"] and report["finished"], audit)
        self.assertGreater(report["audited_tokens"], 0)
        return report

    def assert_nothing_left(self):
        """No process of this class's runs, and no socket folder of them, here or elsewhere."""
        end = time.monotonic() + 5
        while (left := processes_of(self.scratch)) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in left:
            kill(pid)
        self.assertEqual(left, {}, "processes left behind")
        for folder in self.socket_folders():
            self.assertFalse(folder.exists(), f"socket folder left behind: {folder}")

    def socket_folders(self):
        """Where the brokers of this class listened, launchers that were killed left out: what they
        leave in the run directory, the next start clears up."""
        for log in self.scratch.glob("**/logs/broker.log"):
            for line in log.read_text(errors="replace").splitlines():
                if " listening on ipc://" not in line:
                    continue
                folder = pathlib.Path(line.split("ipc://", 1)[1]).parent
                # A copied run holds the log of the run it was copied from.
                if not any((run / "rendezvous.json").exists()
                           for run in (log.parent.parent, folder.parent)):
                    yield folder
