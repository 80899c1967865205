"""Supervised training from files and from an earlier run: learned by heart, exact over ranks, deaths and stops."""

import json
import signal
import unittest

import farm

ALONE = ("rl.steps=0", "eval.items=0")
PAIRS = [("1 2=3:", "1+2=3;"), ("2 2=4:", "2+2=4;"), ("5 3=2:", "5-3=2;"), ("4 2=8:", "4*2=8;"), ("8 2=4:", "8/2=4;"),
         ("7 2=9:", "7+2=9;")]


def completions(pairs=PAIRS):
    return "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs)


def chats(pairs=PAIRS):
    return "".join(json.dumps({"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": c}]}) + "\n"
                   for p, c in pairs)


class Supervised(farm.FarmTest):
    def write(self, name, text):
        path = self.scratch / name
        path.write_text(text)
        return path

    def sets(self, path, *more):
        return (*ALONE, "supervised.source=jsonl", f"supervised.file={path}", "supervised.steps=60", "supervised.batch=24",
                *more)

    def assert_audited(self, run):
        audit = self.command("audit", run.folder, "--json")
        self.assertEqual(audit.code, 0, audit)
        self.assertTrue(json.loads(audit.out)["sound"], audit)

    def losses(self, run, key="loss"):
        return [line["learner"][key] for line in run.metrics() if key in line["learner"]]

    def test_a_small_file_is_learned_by_heart_whatever_dies(self):
        path = self.write("pairs.jsonl", completions())
        sets = self.sets(path, "supervised.eval_file=" + str(path), "supervised.eval_every=20")
        run = self.run_farm("heart", *sets)
        losses = self.losses(run)
        self.assertGreater(losses[0], 2)
        self.assertLess(losses[-1], 0.05, losses)
        self.assert_audited(run)
        measured = self.losses(run, "eval_loss")
        self.assertEqual(len(measured), 3)
        self.assertLess(measured[-1], 0.05)
        self.assertGreater(measured[0], measured[-1])
        # A conversation in the plain form is the same tokens.
        same = [self.run_farm("ranks", *sets, "learner.ranks=2", "actors.count=1"),
                self.run_farm("killed", *sets, faults="actor-0:kill@upload=3,learner-0:kill@step=27,broker:kill@accepted=600"),
                self.run_farm("chats", *self.sets(self.write("chats.jsonl", chats())))]
        self.assertEqual({r.hash() for r in same}, {run.hash()})
        self.assertEqual(self.losses(same[0], "eval_loss"), measured)

    def test_a_stopped_run_goes_on_with_other_ranks_and_the_same_file(self):
        path = self.write("stopped.jsonl", completions())
        sets = self.sets(path, "supervised.batch=32")
        whole = self.run_farm("whole", *sets)
        launched = self.start("stopped", *sets)
        self.wait_until(lambda: len(launched.run.metrics()) >= 15, "15 steps", launched)
        farm.kill(launched.process.pid, signal.SIGINT)
        self.assertEqual(launched.finish(60).code, 75)
        path.write_text(completions(PAIRS[:-1]))
        refused = self.command("run", "--resume", launched.run.folder)
        self.assertNotEqual(refused.code, 0, refused)
        self.assertIn("supervised.file: " + str(path), refused.err)
        moved = self.write("moved.jsonl", completions())
        again = self.command("run", "--resume", launched.run.folder, "--set", f"supervised.file={moved}", "--set",
                             "learner.ranks=2", timeout=farm.LONGEST_RUN_S)
        self.assertEqual(again.code, 0, f"{again}{self.logs(launched.run)}")
        self.assertEqual(launched.run.hash(), whole.hash())
        replay = lambda: self.command("replay", launched.run.folder, "supervised/0/3/0")
        self.assertEqual(replay().code, 0, replay())
        moved.write_text(completions(PAIRS[1:]))
        self.assertIn("supervised.file: " + str(moved), replay().err)

    def test_what_a_run_got_right_is_learned_by_the_next(self):
        first = self.run_farm("first", "task.reward_unparsable=0", "eval.items=0", "supervised.steps=150", "rl.groups=16")
        rewards = [t["outcome"]["reward"] for t in self.trajectories(first)]
        self.assertGreater(sum(r >= 1 for r in rewards), 3, "the tiny run solved too little to learn from")
        sets = (*ALONE, "supervised.source=trajectories", f"supervised.run={first.folder}", "supervised.steps=60",
                "supervised.batch=32")
        second = self.run_farm("second", *sets)
        self.assertLess(self.losses(second)[-1], 0.5 * self.losses(second)[0])
        self.assertEqual(self.run_farm("second-ranks", *sets, "learner.ranks=2").hash(), second.hash())

    def trajectories(self, run):
        shown = self.command("trajectories", run.folder, "export", "--stream", "train")
        self.assertEqual(shown.code, 0, shown)
        return [json.loads(line) for line in shown.out.splitlines()]

    def test_a_supervised_loss_beside_the_policys(self):
        path = self.write("mixture.jsonl", completions())
        common = ("supervised.steps=20", "eval.items=0", "supervised.source=jsonl", f"supervised.file={path}")
        sets = (*common, "objective.supervised_coefficient=0.5", "supervised.mixture_batch=12")
        mixed = self.run_farm("mixed", *sets)
        self.assertEqual(self.run_farm("mixed-ranks", *sets, "learner.ranks=2").hash(), mixed.hash())
        self.assertEqual(self.run_farm("mixed-killed", *sets, faults="learner-0:kill@step=23").hash(), mixed.hash())
        self.assertNotEqual(self.run_farm("unmixed", *common).hash(), mixed.hash())
        self.assertEqual(len(self.losses(mixed, "supervised_loss")), 6)
        self.assertEqual(mixed.summary()["mismatched_tokens"], 0)
        self.assert_sound(mixed)

    def test_check_names_what_is_wrong_and_counts_what_is_not(self):
        good = self.write("good.jsonl", completions() + completions([("1" * 60 + ":", "2;")]))
        check = lambda path, *sets: self.command("check", farm.TINY, *sum([["--set", s] for s in self.sets(path, *sets)], []))
        counted = check(good, "supervised.over_long=drop")
        self.assertEqual(counted.code, 0, counted)
        self.assertIn("examples: 6 to train on, 0 to measure; too long: 1 dropped", counted.out)
        cases = {"line 7: ": good,
                 "line 2: messages[0].role: found string \"bot\"": self.write(
                     "role.jsonl", completions(PAIRS[:1]) + '{"messages": [{"role": "bot", "content": "1"}]}\n'),
                 "line 1: found the character 'x'": self.write("x.jsonl", completions([("1", "x")])),
                 "supervised.file: /none": "/none"}
        for expected, path in cases.items():
            refused = check(path)
            self.assertEqual(refused.code, 2, refused)
            self.assertIn(expected, refused.err)


if __name__ == "__main__":
    unittest.main()
