"""Learner ranks that die at any moment, and a whole farm that dies at once and is resumed: the final weights are those of
the run that nothing disturbed.

THRESHER_KILLS (10 by default, a minute): how many random moments; THRESHER_SEEDS."""

import os
import pathlib
import random
import signal
import time
import unittest

import farm

KILLS = int(os.environ.get("THRESHER_KILLS", "10"))
STEPS_PER_KILL = 4
PATIENCE_S = 120  # for the next step: far more than any restart takes

# Of each life one death. Rank 1 dies before the collective in which rank 0 is then; the points of a checkpoint are those of
# the second of a life, so that there is one before.
POINTS = ("learner-1:kill@before_reduce=4", "learner-0:kill@before_reduce=7", "learner-1:kill@step=5",
          "learner-0:kill@before_checkpoint=1", "learner-0:kill@in_checkpoint=2", "learner-0:kill@after_checkpoint=2",
          "learner-0:kill@after_report=2", "learner-0:kill@in_checkpoint=1", "learner-0:kill@after_commit=3",
          "learner-0:kill@before_publish=2", "learner-0:kill@after_publish=2", "learner-1:kill@step=3")


def rank_of(pid):
    """Of a learner that mpirun started."""
    for entry in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(b"OMPI_COMM_WORLD_RANK="):
            return int(entry.split(b"=")[1])
    return 0


class RankDeaths(farm.FarmTest):
    # Both phases are long enough for the moments, and a checkpoint is never far.
    STEPS = max(24, KILLS * STEPS_PER_KILL)
    OVERRIDES = (f"rl.steps={STEPS}", "checkpoint.every=3", "eval.items=4", "learner.max_restarts=1000")

    def assert_same_result(self, run):
        self.assertEqual(run.hash(), self.reference().hash(), self.logs(run))
        self.assertEqual(run.summary()["final_chain"], self.reference().summary()["final_chain"])
        self.assertEqual(run.summary()["mismatched_tokens"], 0)
        self.assert_sound(run)
        left = [path.name for path in (run.folder / "checkpoints").iterdir() if ".tmp-" in path.name]
        self.assertEqual(left, [], "nothing half written is left")

    def test_ranks_die_at_every_point(self):
        faults = ",".join(f"{point}#{life}" for life, point in enumerate(POINTS))
        run = self.run_farm("points", "learner.ranks=2", "learner.zero=1", faults=faults)
        said = run.log("learner")
        for point in POINTS:
            name, what = point.split(":kill@")
            self.assertIn(f"{name}: planted fault: kill at {what.replace('=', ' ')}", said)
        self.assert_same_result(run)

    def test_a_rank_alone_dies_while_it_writes_a_checkpoint(self):
        for background in ("true", "false"):
            with self.subTest(background=background):
                run = self.run_farm(f"alone-{background}", f"checkpoint.background={background}",
                                    faults="learner-0:kill@in_checkpoint=3,learner-0:kill@after_checkpoint=1#1")
                self.assertEqual(run.log("learner").count("planted fault"), 2)
                self.assert_same_result(run)

    def test_a_rank_that_is_stopped_is_named_and_the_job_starts_again(self):
        deadline_s = 4
        launched = self.start("stopped", "learner.ranks=2", f"learner.collective_timeout_seconds={deadline_s}")
        run = launched.run
        self.wait_until(lambda: run.steps_committed() >= 5 and len(run.processes("learner")) == 2, "step 5", launched,
                        PATIENCE_S)
        before = run.processes("learner")
        rank_1 = next(pid for pid in before if rank_of(pid) == 1)
        self.assertTrue(farm.kill(rank_1, signal.SIGSTOP))
        began = time.monotonic()
        self.wait_until(lambda: (found := run.processes("learner")) and not set(found) & set(before), "another job",
                        launched, PATIENCE_S)
        self.assertLess(time.monotonic() - began, 5 * deadline_s)
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(run)}")
        said = run.log("learner")
        self.assertRegex(said, r"rank 0: [a-z-]+ '[a-z ]+' #\d+: rank 1 did not answer within 4000 ms; rank 1 is behind: .*"
                               r"nothing heard of its process for [0-9.]+ s: it is stopped or dead")
        flight = run.json("learner/flight_0.json")
        self.assertIn("rank 1 did not answer", flight["error"])
        self.assertEqual(flight["operations"][-1]["state"], "failed")
        self.assert_same_result(run)

    def test_ranks_die_at_random_moments(self):
        first, last = (int(text) for text in os.environ.get("THRESHER_SEEDS", "1-1").split("-"))
        for seed in range(first, last + 1):
            with self.subTest(seed=seed):
                self.random_moments(seed)

    def random_moments(self, seed):
        """A rank at a time, at moments spread over the steps."""
        chance = random.Random(seed)
        launched = self.start(f"random-{seed}", "learner.ranks=2")
        run = launched.run
        total = 30 + self.STEPS
        moments = sorted(chance.uniform(1, total - 3) for _ in range(KILLS))
        for moment in moments:
            self.wait_until(lambda: run.steps_committed() >= int(moment) and len(run.processes("learner")) == 2,
                            f"step {int(moment)}", launched, PATIENCE_S)
            time.sleep(chance.uniform(0, 0.1))  # the schedule itself: a random moment within a step
            self.assertTrue(farm.kill(chance.choice(run.processes("learner"))))
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(run)}")
        self.assert_same_result(run)
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_everything_is_killed_at_once_and_resumed(self):
        chance = random.Random(11)
        launched = self.start("all", "learner.ranks=2")
        run = launched.run
        for moment in (7, 31, 40):
            self.wait_until(lambda: run.steps_committed() >= moment, f"step {moment}", launched, PATIENCE_S)
            time.sleep(chance.uniform(0, 0.1))
            everybody = farm.processes_of(run.folder)
            self.assertIn(launched.process.pid, everybody)
            for pid in everybody:
                farm.kill(pid)
            launched.finish()
            self.wait_until(lambda: not farm.processes_of(run.folder), "the end of its processes", timeout=5)
            launched = farm.Launched(run, [farm.program("thresher"), "run", "--resume", str(run.folder)], "")
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(run)}")
        self.assert_same_result(run)


if __name__ == "__main__":
    unittest.main()
