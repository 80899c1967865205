"""A real broker under peers that are too many, too loud or too slow: its memory stays within its
budget, everybody else goes on, and nobody is declared dead who is not.

THRESHER_SECONDS: how long each lasts (10 by default)."""

import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

import farm

SECONDS = float(os.environ.get("THRESHER_SECONDS", "10"))
BUDGET = 128 << 20  # the least that messages of 8 MiB allow
# Of the process that is not the budget's: code, journal buffers, ZeroMQ. Measured: a broker without
# peers takes 20 MiB.
BASE = 48 << 20
# Work without end, small batches.
RUN = ("supervised.steps=0", "supervised.batch=4", "rl.steps=1000000", "rl.groups=16", "rl.group_size=8",
       "eval.items=0", "journal.mode=async")


class Load(farm.FarmTest):
    def setUp(self):
        super().setUp()
        self.children = []

    def tearDown(self):
        self.end_children()
        super().tearDown()

    def end_children(self):
        for child in self.children:
            child.kill()
            child.wait()
        self.children = []

    def launch(self, name, *words):
        log = open(self.run_.folder / "logs" / f"{name}.log", "wb")
        self.addCleanup(log.close)
        child = subprocess.Popen([*map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 env=farm.environment())
        self.children.append(child)
        return child

    def peers(self, name, *words):
        return self.launch(name, farm.program("peers-tool"), self.run_.folder, *words)

    def serve(self, name, *overrides):
        """A broker of a run for such peers."""
        self.run_ = farm.Run(self.scratch / name)
        self.serve_made(farm.program("peers-tool"), self.run_.folder, "init", *RUN, *overrides)

    def serve_made(self, *words):
        subprocess.run([*map(str, words), f"broker.memory_bytes={BUDGET}"], check=True)
        self.broker = self.launch("broker", farm.program("thresher-broker"), "--run", self.run_.folder)
        self.wait_until(self.run_.status, "a broker", timeout=30)

    def memory(self):
        """Most memory that the broker has had, bytes."""
        for line in pathlib.Path(f"/proc/{self.broker.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
        self.fail("the broker is gone")

    def watch(self, seconds=SECONDS):
        """Lets time pass; the status of its end. Fails when the books or the memory are wrong."""
        end = time.monotonic() + seconds
        status = None
        while time.monotonic() < end or status is None:
            self.assertIsNone(self.broker.poll(), self.logs(self.run_))
            status = self.run_.status() or status
            if status:
                self.assertTrue(status["ledger"]["balanced"], status["ledger"])
                credits = status["credits"]
                self.assertLessEqual(credits["granted_bytes"], credits["budget_bytes"])
                self.assertLessEqual(credits["in_use_bytes"], credits["budget_bytes"])
            self.assertLess(self.memory(), BASE + BUDGET * 1.1)
            time.sleep(0.1)
        return status

    def assert_nobody_blamed(self, status):
        self.assertEqual(status["leases"]["expired"], 0, status["counters"])
        self.assertEqual(status["faults"]["alarms"], 0, status["faults"])
        self.assertEqual(status["counters"].get("samples_conflict", 0), 0)

    def test_sixty_four_actors_that_die_and_come_back_every_second(self):
        self.serve("reconnect")
        self.peers("learner", "learner")
        self.peers("actors", "actors", 64, 1000)
        status = self.watch()
        print(f"reconnecting: {self.memory() >> 20} MiB, {json.dumps(status['counters'])}", flush=True)
        self.assert_nobody_blamed(status)
        self.assertGreater(status["counters"]["actor_restarts"], 32, "hardly anybody came back: nothing was tried")
        self.assertGreater(status["step"], 5)

    def test_a_broker_that_stands_still_now_and_then_stays_within_its_memory(self):
        # What comes meanwhile waits in ZeroMQ, outside its books; so does what processes sent that are dead by then.
        self.serve("stopped")
        self.peers("learner", "learner")
        self.peers("actors", "actors", 64, 1000)
        self.peers("flood", "flood", 99, 6_000_000)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.watch(0.5)
            self.broker.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            self.broker.send_signal(signal.SIGCONT)
        before = self.watch(0.5)["step"]
        self.wait_until(lambda: self.watch(0.1)["step"] > before + 5, "steps behind the last stop", timeout=60)
        status = self.watch(0.1)
        print(f"stopped: {self.memory() >> 20} MiB, {json.dumps(status['counters'])}", flush=True)
        self.assert_nobody_blamed(status)
        self.assertGreater(status["counters"]["held_up_seconds"], SECONDS / 4)
        self.assertGreater(status["counters"]["actor_restarts"], SECONDS)

    def test_an_actor_that_sends_as_fast_as_it_can(self):
        # Four others: four fifths of the broker are their fair share, and they keep half of it. The longest messages,
        # once their sender is known for them, are not looked at, but they take their time to arrive: turns go by message.
        alone = self.rate_beside("alone", None)
        for size, least in ((200_000, 0.8 / 2), (6_000_000, 1 / 20)):
            beside = self.rate_beside(f"flooded-{size}", size)
            print(f"flooded with {size}: {self.memory() >> 20} MiB, {alone:.1f} steps/s alone, {beside:.1f} beside it",
                  flush=True)
            self.assertGreater(beside, alone * least, "the others starve")

    def test_batches_that_have_no_room_in_memory_are_read_back(self):
        # A batch of 270 MB; the peers of the benchmark, which are as fast as can be and keep to their credit.
        self.run_ = farm.Run(self.scratch / "large")
        self.serve_made(farm.program("broker-load"), "init", self.run_.folder, "journal.mode=async")
        peers = self.launch("peers", farm.program("broker-load"), "peers", self.run_.folder, 8192, 64, 28, SECONDS)
        status = self.watch()
        peers.wait(timeout=60)
        print(f"large batches: {self.memory() >> 20} MiB, {json.dumps(status['queues'])}", flush=True)
        self.assert_nobody_blamed(status)
        self.assertEqual(peers.returncode, 0, self.logs(self.run_))
        self.assertGreater(status["queues"]["batches"]["read_back"], 100, "all had room: nothing was tried")
        self.assertGreater(status["step"], 0)

    def rate_beside(self, name, flood_bytes):
        self.end_children()
        self.serve(name)
        self.peers("learner", "learner")
        self.peers("actors", "actors", 4)
        if flood_bytes:
            self.peers("flood", "flood", 99, flood_bytes)
        self.wait_until(lambda: (self.run_.status() or {"step": 0})["step"] > 3, "some steps", timeout=60)
        before, begin = self.run_.status()["step"], time.monotonic()
        status = self.watch()
        rate = (status["step"] - before) / (time.monotonic() - begin)
        self.assert_nobody_blamed(status)
        if flood_bytes:
            # Within its share it is looked at and not wanted, beyond it not even looked at.
            kinds = ("samples_refused", "uploads_over_credit", "uploads_repeated", "frames_of_floods")
            self.assertGreater(sum(status["counters"].get(kind, 0) for kind in kinds), 20, status["counters"])
        return rate

    def test_a_slow_learner_slows_the_actors_and_costs_nothing(self):
        self.serve("slow")
        self.peers("learner", "learner", 500)
        self.peers("actors", "actors", 8)
        self.wait_until(lambda: (self.run_.status() or {"step": 0})["step"] > 2, "some steps", timeout=60)
        first = self.run_.status()
        status = self.watch()
        steps = status["step"] - first["step"]
        self.assertGreater(steps, 0)
        self.assertLess(steps, 2 * SECONDS + 2)
        self.assert_nobody_blamed(status)
        dropped = status["ledger"]["total"]["dropped"]
        self.assertEqual(set(dropped) - {"zero_variance", "not_selected"}, set(), dropped)
        self.assertEqual(status["counters"].get("uploads_over_credit", 0), 0)


if __name__ == "__main__":
    unittest.main()
