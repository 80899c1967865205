"""Deaths of every process, at chosen points and at random ones, change no bit of the result."""

import os
import random
import time
import unittest

import farm

# Five deaths of one actor, the last point of each life: in decode, between upload and ack, while
# weights are swapped, and both of the first once more, later.
ACTOR_DEATHS = ("actor-0:kill@decode=5,actor-0:kill@upload=1#1,actor-0:kill@swap=1#2,"
                "actor-0:kill@upload=3#3,actor-0:kill@decode=10#4")
BROKER_DEATH = "broker:kill@committed=14"
LEARNER_DEATH = "learner-0:kill@step=23"


class Deaths(farm.FarmTest):
    def survives(self, name, faults, *overrides):
        run = self.run_farm(name, *overrides, faults=faults)
        self.assertEqual(run.hash(), self.reference().hash(), self.logs(run))
        self.assertEqual(run.summary()["mismatched_tokens"], 0)
        self.assert_sound(run)
        return run

    def planted(self, run, name):
        """What the planted deaths of a process said, in order."""
        start = f"{name}: planted fault: kill at "
        return [line[len(start):] for line in run.log(name).splitlines() if line.startswith(start)]

    def test_an_actor_dies_five_times(self):
        # One actor only: nobody else can do its work meanwhile, so every planted point is reached.
        run = self.survives("five-deaths", ACTOR_DEATHS, "actors.count=1")
        self.assertEqual(self.planted(run, "actor-0"),
                         ["decode 5", "upload 1", "swap 1", "upload 3", "decode 10"])
        self.assertEqual(run.result.err.count("actor-0: SIGKILL, restarted"), 5)

    def test_the_broker_dies(self):
        run = self.survives("broker", BROKER_DEATH)
        self.assertEqual(self.planted(run, "broker"), ["committed 14"])
        self.assertEqual(run.summary()["faults"]["broker_starts"], 2)

    def test_the_learner_dies(self):
        run = self.survives("learner", LEARNER_DEATH)
        self.assertEqual(self.planted(run, "learner"), [])
        self.assertIn("learner-0: planted fault: kill at step 23", run.log("learner"))
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_a_rank_of_the_learner_job_dies(self):
        run = self.survives("rank", "learner-1:kill@step=23", "learner.ranks=2")
        self.assertIn("learner-1: planted fault: kill at step 23", run.log("learner"))
        self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def test_all_of_them_die_in_one_run(self):
        faults = f"{ACTOR_DEATHS},{BROKER_DEATH},{LEARNER_DEATH},learner-0:kill@step=9#1"
        run = self.survives("all", faults, "actors.count=1")
        self.assertEqual(len(self.planted(run, "actor-0")), 5)
        self.assertEqual(self.planted(run, "broker"), ["committed 14"])
        self.assertEqual(run.log("learner").count("planted fault"), 2)

    def test_the_broker_dies_at_every_point(self):
        # One life for each point at which an effect is about to become a record.
        points = ["accepted=3", "composed=4", "committed=5", "durable=1", "published=1", "evaluated=1"]
        faults = ",".join(f"broker:kill@{point}#{life}" for life, point in enumerate(points))
        run = self.survives("broker-points", faults, "learner.max_restarts=20")
        expected = [point.replace("=", " ") for point in points]
        self.assertEqual(self.planted(run, "broker"), expected)

    def test_random_processes_die_at_random_times(self):
        first, last = (int(text) for text in os.environ.get("THRESHER_SEEDS", "1-2").split("-"))
        for seed in range(first, last + 1):
            with self.subTest(seed=seed):
                self.random_deaths(seed)

    def random_deaths(self, seed):
        chance = random.Random(seed)
        launched = self.start(f"random-{seed}", "actors.count=3", "learner.max_restarts=20")
        run, killed = launched.run, []
        roles = ["actor", "broker", "learner", "actor", "actor", "learner", "broker"]
        chance.shuffle(roles)
        # Moments are drawn from the run's progress: on a fast machine it is over in two seconds.
        steps = sorted(chance.sample(range(1, 30), len(roles)))
        for step, role in zip(steps, roles):
            self.wait_until(lambda: run.steps_committed() >= step or not launched.alive(),
                            f"step {step}")
            time.sleep(chance.uniform(0, 0.1))
            self.wait_until(lambda: run.processes(role) or not launched.alive(), f"a live {role}")
            pids = run.processes(role)
            if pids and launched.alive() and farm.kill(chance.choice(pids)):
                killed.append(role)
        result = launched.finish()
        self.assertEqual(result.code, 0, f"killed {killed}: {result}{self.logs(run)}")
        self.assertGreater(len(killed), 2, killed)
        self.assertEqual(run.hash(), self.reference().hash(), f"killed {killed}")
        self.assertEqual(run.summary()["mismatched_tokens"], 0)
        self.assert_sound(run)


if __name__ == "__main__":
    unittest.main()
