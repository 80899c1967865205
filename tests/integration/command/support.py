"""Calling the command and looking at what it leaves."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

CLI = os.environ["THRESHER_CLI"]
TAMPER = os.environ["THRESHER_TAMPER"]
ROOT = pathlib.Path(__file__).resolve().parents[3]


def call(*words, timeout=120, **options):
    """The finished process of `thresher WORDS`, output as text."""
    return subprocess.run([CLI, *map(str, words)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **options)


def tamper(run, *words):
    done = subprocess.run([TAMPER, str(run), *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout


def processes_of(folder):
    """Command lines of processes that name `folder`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(folder) in word for word in command):
            found.append((int(entry.name), command))
    return found


class CommandTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="thr-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def config(self, text, name="config.yaml"):
        path = self.folder / name
        path.write_text(text)
        return path

    def expect(self, code, *words, **options):
        done = call(*words, **options)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout}{done.stderr}")
        return done
