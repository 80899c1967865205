"""Dynamic sampling: whole rounds of groups until enough of them are informative, the same groups whatever
the number of actors and whoever dies."""

import unittest

import farm


class DynamicSampling(farm.FarmTest):
    # Groups of two of a barely trained model: most have no variance, so that most steps need more than one round.
    OVERRIDES = ("rl.dynamic_sampling=true", "rl.drop_zero_variance=true", "rl.group_size=2", "rl.groups=4",
                 "rl.max_rounds=6")

    def steps(self, run):
        return [step for step in run.metrics() if step["phase"] == "rl"]

    def survives(self, name, *overrides, faults=""):
        run = self.run_farm(name, *overrides, faults=faults)
        self.assertEqual(run.hash(), self.reference().hash(), self.logs(run))
        self.assert_sound(run)
        return run

    def test_rounds_are_issued_until_there_is_enough(self):
        run = self.reference()
        steps = self.steps(run)
        self.assertGreater(max(step["rounds"] for step in steps), 1, steps)
        for step in steps:
            self.assertEqual(step["samples"], step["rounds"] * 8)
            if step["rounds"] < 6:
                self.assertEqual(step["batch"], 8, step)
            self.assertEqual(step["samples"], step["batch"] + step["zero_variance_samples"] + step["surplus_samples"])
        self.assertGreater(sum(step["surplus_samples"] for step in steps), 0, "nothing was left over: little is tested")
        self.assert_sound(run)

    def test_any_number_of_actors_trains_the_same(self):
        for count in (1, 3):
            self.survives(f"actors-{count}", f"actors.count={count}")

    def test_whoever_dies_the_rounds_are_the_same(self):
        # Counted in each life of the broker: the first ends with the second RL step.
        points = ["composed=32", "accepted=5", "composed=1", "committed=1", "published=1"]
        faults = ",".join(f"broker:kill@{point}#{life}" for life, point in enumerate(points))
        run = self.survives("deaths", "learner.max_restarts=20",
                            faults=f"{faults},actor-0:kill@decode=5,learner-0:kill@step=33")
        self.assertGreater(run.summary()["faults"]["broker_starts"], 3)

    def test_a_step_that_stays_short_trains_on_what_it_has_or_ends_the_run(self):
        run = self.run_farm("short", "rl.max_rounds=1")
        counters = run.summary()["counters"]
        self.assertGreater(counters["steps_short"], 0, counters)
        self.assert_sound(run)
        failed = self.run_farm("fails", "rl.max_rounds=1", "rl.when_short=fail", code=3)
        self.assertIn("after 1 rounds (rl.max_rounds); rl.when_short is fail", failed.log("broker") + self.logs(failed))

    def test_the_audit_names_a_round_that_is_missing_or_stands_twice(self):
        listed = self.store_tool("journal", self.reference().folder / "journal", "list").splitlines()
        issued = [line.split(" ", 3) for line in listed if " ItemsIssued " in line]
        subjects = [subject for _, _, _, subject in issued]
        number, step = next((number, subject) for i, (number, _, _, subject) in enumerate(issued)
                            if subject in subjects[:i])  # the second round of a step
        for words in (["remove", number], ["double", number], ["alter", number, "round"]):
            with self.subTest(words=words):
                forged = self.copy_of(self.reference(), "forged")
                self.store_tool("journal", forged.folder / "journal", *words)
                audit = self.command("audit", forged.folder)
                self.assertEqual(audit.code, 1, audit)
                self.assertRegex(audit.out, f"problem: .*{step}\\b")


if __name__ == "__main__":
    unittest.main()
