"""Runs whose engines and leaves are computed on GPUs: on the simulated one, with the farm's own
programs (tests/support/cuda_sim)."""

import fcntl
import os
import signal
import struct
import time
import unittest
import unittest.mock

import farm

ON_GPUS = ("actors.device=cuda", "learner.device=cuda")
IN_TURNS = ("engine.colocated=true", "actors.count=1")


ACTORS, LEARNERS, GATE = range(3)  # bytes of a turn's file (common/sync/device_turn)


class Peer:
    """Takes a device's turn as a process of the farm would, and keeps it."""

    def __init__(self, path, side):
        self.file = open(path, "r+b")
        self.side = side

    def close(self):
        self.file.close()

    def _lock(self, byte, kind, command):
        lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0)  # struct flock
        return struct.unpack("hhqqi0q", fcntl.fcntl(self.file, command, lock))[0]

    def _taken(self, byte):
        return self._lock(byte, fcntl.F_WRLCK, fcntl.F_OFD_GETLK) != fcntl.F_UNLCK

    def take(self):
        """Whether it has the turn now; else it has asked for it, if nobody else has."""
        try:
            self._lock(GATE, fcntl.F_WRLCK, fcntl.F_OFD_SETLK)
        except BlockingIOError:
            return False
        if self._taken(ACTORS + LEARNERS - self.side):
            return False
        self._lock(self.side, fcntl.F_RDLCK, fcntl.F_OFD_SETLK)
        self._lock(GATE, fcntl.F_UNLCK, fcntl.F_OFD_SETLK)
        return True

    def is_asked(self):
        return self._taken(GATE)

    def has_other(self):
        return self._taken(ACTORS + LEARNERS - self.side)


class OnGpus(farm.FarmTest):
    # A simulated device is some hundred times slower than the CPU it runs on.
    OVERRIDES = ("supervised.steps=4", "supervised.warmup_steps=1", "supervised.batch=8", "rl.steps=3", "rl.groups=4",
                 "rl.group_size=2", "eval.items=2", "eval.samples=1", "checkpoint.every=3")

    def on_gpus(self, name, *overrides, faults=""):
        simulated = {"THRESHER_BUILD": os.environ["THRESHER_SIMULATED"]}
        with unittest.mock.patch.dict(os.environ, simulated):
            return self.run_farm(name, *overrides, faults=faults)

    def same(self, name, *overrides, faults=""):
        run = self.on_gpus(name, *overrides, faults=faults)
        self.assertEqual(run.hash(), self.reference().hash())
        self.assertEqual(run.summary()["mismatched_tokens"], 0)
        return run

    def test_a_run_on_gpus_ends_with_the_weights_of_one_on_cpus(self):
        run = self.same("gpus", *ON_GPUS)
        self.assertGreater(run.summary()["tokens"]["audited"], 0)
        self.assert_sound(run)
        # Replayed on the CPU.
        replayed = self.command("replay", run.folder, "--random", 10, "--json")
        self.assertEqual(replayed.code, 0, replayed)

    def test_sides_may_differ(self):
        self.same("actors", "actors.device=cuda:0")

    def test_an_offloaded_optimiser_changes_no_bit(self):
        self.same("offloaded", *ON_GPUS, "learner.offload_optimizer=true")

    def test_sixteen_bit_weights_are_rounded_alike_on_both(self):
        half = ("model.dtype=bfloat16", "engine.kernel_set=cpu-fp32-v1")
        on_cpus = self.run_farm("cpus-16", *half)
        on_gpus = self.on_gpus("gpus-16", *half, *ON_GPUS)
        self.assertEqual(on_gpus.hash(), on_cpus.hash())
        self.assertEqual(on_gpus.summary()["mismatched_tokens"], 0)

    def test_a_critic_is_the_same_on_both(self):
        for preset in ("ppo", "vtrace_impala"):
            preset = f"objective.preset={preset}"
            on_cpus, on_gpus = self.run_farm("cpus-" + preset, preset), self.on_gpus("gpus-" + preset, preset, *ON_GPUS)
            self.assertEqual(on_gpus.hash(), on_cpus.hash())
            for run in (on_cpus, on_gpus):
                self.assertNotEqual([line["learner"].get("value_loss") for line in run.metrics()[-2:]], [0, 0])

    def test_actor_and_learner_may_take_turns_on_one(self):
        self.same("colocated", *ON_GPUS, *IN_TURNS)

    def peer_of(self, launched, side):
        find = lambda: next(launched.run.folder.glob("gpu-*.turn"), None)
        peer = Peer(self.wait_until(find, "the file of the turns", launched), side)
        self.addCleanup(peer.close)
        return peer

    def start_in_turns(self, name, *overrides):
        simulated = {"THRESHER_BUILD": os.environ["THRESHER_SIMULATED"]}
        with unittest.mock.patch.dict(os.environ, simulated):
            return self.start(name, *ON_GPUS, *IN_TURNS, *overrides)

    def test_a_learner_that_keeps_its_turn_costs_no_actor_its_leases(self):
        launched = self.start_in_turns("slow", "broker.lease_min_progress_ms=3000", "net.heartbeat_ms=100")
        peer = self.peer_of(launched, LEARNERS)
        self.wait_until(peer.take, "a turn", launched)
        # The supervised steps need no actor's GPU; then the actor has work and waits.
        self.wait_until(peer.is_asked, "an actor that asks for its turn", launched, 200)
        expired = len(launched.run.events("lease_expired"))
        time.sleep(10)  # silence ends a lease after 5 s, no progress after 3 s
        self.assertTrue(peer.is_asked())
        self.assertEqual(len(launched.run.events("lease_expired")), expired)
        peer.close()
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(launched.run)}")
        self.assertEqual(launched.run.hash(), self.reference().hash())

    def test_who_waits_for_its_turn_can_be_stopped(self):
        for side, name in ((LEARNERS, "actor-waits"), (ACTORS, "learner-waits")):
            with self.subTest(name):
                launched = self.start_in_turns(name)
                peer = self.peer_of(launched, side)
                self.wait_until(peer.take, "a turn", launched)
                self.wait_until(peer.is_asked, "a process that asks for its turn", launched, 200)
                farm.kill(launched.process.pid, signal.SIGINT)
                result = launched.finish(60)
                self.assertEqual(result.code, 75, f"{result}{self.logs(launched.run)}")
                self.assertIn("stopped; ", result.err)

    def test_a_turn_ends_when_it_is_asked_for(self):
        launched = self.start_in_turns("asked")
        for side in (ACTORS, LEARNERS):
            peer = self.peer_of(launched, side)
            self.wait_until(peer.has_other, "the other side's turn", launched, 200)
            self.wait_until(peer.take, "a turn that was asked for", launched)
            peer.close()
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(launched.run)}")
        self.assertEqual(launched.run.hash(), self.reference().hash())

    def test_processes_killed_in_their_turn_change_no_bit(self):
        run = self.same("killed-in-turn", *ON_GPUS, *IN_TURNS,
                        faults="actor-0:kill@decode=9,learner-0:kill@step=6")
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_killed_processes_change_no_bit(self):
        run = self.same("killed", *ON_GPUS, faults="actor-0:kill@decode=9,learner-0:kill@step=6")
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(self):
        simulated = {"THRESHER_BUILD": os.environ["THRESHER_SIMULATED"]}
        with unittest.mock.patch.dict(os.environ, simulated):
            launched = self.start("missing", "actors.device=cuda:7")
            done = launched.finish()
        self.assertEqual(done.code, 2, done)
        self.assertIn("actors.device: value 'cuda:7'; allowed: cuda:0", done.err)
        self.assertFalse(launched.run.folder.exists())


if __name__ == "__main__":
    unittest.main()
