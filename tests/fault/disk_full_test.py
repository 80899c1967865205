"""A disk that fills up during a run: the run waits and says so, goes on by itself, and loses nothing.

The run lies on a small tmpfs. Mounting one needs a mount namespace: the test starts itself again in
one of its own, as root or in a user namespace; where neither is allowed it is skipped."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import unittest

import farm

MARK = "THRESHER_TEST_NAMESPACE"
DISK_BYTES = 192 << 20
PAUSE_S = 3  # how long a full disk stays full: several tries of the broker


def enter_namespace():
    """Starts this process again where it may mount; returns why that cannot be, if it returns."""
    if os.environ.get(MARK):
        return None
    words = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user",
                                                              "--mount"]
    if shutil.which("unshare") is None:
        return "no unshare"
    probe = subprocess.run([*words, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    if probe.returncode != 0:
        return f"may not mount: {probe.stderr.strip()}"
    os.environ[MARK] = "1"
    os.execvp(words[0], [*words, sys.executable, *sys.orig_argv[1:]])


REASON = enter_namespace()


@unittest.skipIf(REASON, REASON)
class DiskFull(farm.FarmTest):
    # Small files: whatever is written soon needs a new one.
    OVERRIDES = ("rl.steps=90", "journal.mode=durable", "journal.segment_bytes=65536",
                 "broker.max_message_bytes=65536", "weights.chunk_bytes=16384")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.disk = cls.scratch / "disk"
        cls.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(cls.disk)], check=True)

    @classmethod
    def tearDownClass(cls):
        subprocess.run(["umount", "--lazy", str(cls.disk)], check=True)
        super().tearDownClass()

    def fill(self):
        """Not a byte is free afterwards, until a checkpoint that finds no room, or an old one, is deleted."""
        with open(self.disk / "ballast", "ab", buffering=0) as ballast:
            for size in (1 << 20, 64):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(bytes(size))

    def free(self):
        (self.disk / "ballast").unlink()

    def survives(self, name, fill_at):
        """A run whose disk is full for a while at each of these numbers of steps."""
        launched = self.start(f"disk/{name}")
        run = launched.run
        for steps in fill_at:
            self.wait_until(lambda: run.steps_committed() >= steps, f"step {steps}", launched)
            self.fill()
            try:
                self.see_it_pause(run, launched)
            finally:
                self.free()
            self.wait_until(lambda: not launched.alive() or (run.status() or {}).get("paused") == "",
                            "the end of the pause")
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(run)}")
        self.assertEqual(run.hash(), self.reference().hash(), self.logs(run))
        self.assertEqual(run.summary()["ledger"]["total"], self.reference().summary()["ledger"]["total"])
        self.assertEqual(run.summary()["faults"]["broker_starts"], 1)
        self.assert_sound(run)
        return run

    def filled_until(self, condition, launched):
        """Polls `condition` until it gives something true, and takes what room there is meanwhile."""
        def look():
            self.fill()
            return condition()
        return self.wait_until(look, "a pause", launched)

    def see_it_pause(self, run, launched):
        status = self.filled_until(lambda: (s := run.status()) and s["paused"] and s, launched)
        self.assertIn("No space left", status["paused"])
        # It is the journal that does not fit, or the weights of a version.
        self.assertTrue({"paused", "weights_not_written"} & set(status["faults"]["by_kind"]), status["faults"])
        self.assertIn("PAUSED: ", self.command("status", run.folder).out)
        end = time.monotonic() + PAUSE_S  # long enough for whoever gives up to do so
        self.filled_until(lambda: time.monotonic() > end, launched)
        again = run.status()
        self.assertEqual(again["step"], status["step"], "nothing is committed meanwhile")
        self.assertTrue(again["ledger"]["balanced"])
        self.assertTrue(all(actor["alive"] for actor in again["actors"]), again["actors"])
        self.assertEqual(again["leases"]["expired"], 0, "nobody is blamed for the disk")

    def test_a_checkpoint_that_does_not_fit_waits_for_room_and_the_run_goes_on(self):
        run = self.waits_for_room("checkpoint", 20)  # the next checkpoint has to wait
        waited = [line["learner"]["checkpoint_waits"] for line in run.metrics()]
        self.assertEqual(waited[8:10], [0, 0], "nothing has been written yet")
        self.assertEqual(waited[19], 1, "shown while the run goes on")
        self.assertEqual(waited[-1], 0)

    def test_without_the_background_it_is_training_that_waits(self):
        self.waits_for_room("in-place", 10, "checkpoint.background=false")

    def waits_for_room(self, name, last_step, *overrides):
        """A run whose checkpoints find no room for a while; meanwhile it comes to `last_step`."""
        # Only the learner writes there: nobody else meets the full disk.
        launched = self.start(name, *overrides)
        run, folder = launched.run, launched.run.folder / "checkpoints"
        self.wait_until(lambda: (run.folder / "manifest.json").exists(), "the run", launched)
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        try:
            self.wait_until(lambda: "waits for room" in run.log("learner"), "the wait", launched)
            self.wait_until(lambda: run.steps_committed() == last_step, f"step {last_step}", launched)
            time.sleep(PAUSE_S)
            self.assertEqual(run.steps_committed(), last_step)
            status = run.status()
            self.assertIn("No space left", status["learners"][0]["waiting"])
            self.assertEqual(status["faults"]["by_kind"].get("checkpoint_waits"), 1, status["faults"])
            self.assertIn("CHECKPOINT WAITS: ", self.command("status", run.folder).out)
        finally:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(run)}")
        self.assertNotIn("restarted", result.err, "the learner has waited, not died")
        self.assertEqual(run.hash(), self.reference().hash())
        self.assert_sound(run)
        return run

    def test_in_the_supervised_phase(self):
        self.survives("supervised", [7])

    def test_in_the_reinforcement_phase_again_and_again(self):
        self.survives("rl", [33, 41, 48])


if __name__ == "__main__":
    unittest.main()
