"""What must not go unseen: a token or a weight that differs from what it should be."""

import re
import signal
import unittest

import farm


class Planted(farm.FarmTest):
    def mismatches(self, run):
        """Sum of mismatched tokens, and the texts of the events that report them."""
        return run.summary()["mismatched_tokens"], self.reports(run)

    def reports(self, run):
        return [e["detail"] for e in run.events() if "mismatch" in e["event"]]

    def test_without_a_fault_every_trained_token_is_audited_and_none_differs(self):
        run = self.reference()
        count, texts = self.mismatches(run)
        self.assertEqual((count, texts), (0, []))
        trained = sum(line["trained_tokens"] for line in run.metrics() if line["phase"] == "rl")
        self.assertEqual(run.summary()["tokens"]["audited"], trained)
        self.assertNotIn("planted fault", "".join(run.log(f"actor-{i}") for i in range(2)))

    def test_one_changed_token_gives_other_weights_and_is_counted_and_found_by_replay(self):
        # The first sample of item 9 or later that the actor finishes.
        run = self.run_farm("token", "actors.count=1", faults="actor-0:token@item=9")
        said = re.findall("planted fault: a changed token in (train/0/[0-9]+/[0-9]+)",
                          run.log("actor-0"))
        self.assertEqual(len(said), 1)
        self.assertNotEqual(run.hash(), self.reference().hash())
        count, texts = self.mismatches(run)
        self.assertGreater(count, 0)
        self.assertTrue(any("actor 0" in text for text in texts), texts)
        self.assertEqual(self.assert_sound(run)["mismatched_tokens"], count)
        replay = self.command("replay", run.folder, said[0])
        self.assertEqual(replay.code, 1, replay)
        self.assertRegex(replay.out, f"{said[0]}: differs at position [0-9]+: token")

    def test_one_weight_off_by_one_ulp_is_counted_and_names_the_actor(self):
        # A run that goes on until actor 1 has answered: on a busy machine actor 0 can do all the
        # work of a short one before the other is there.
        launched = self.start("ulp", "rl.steps=5000", faults="actor-1:ulp@version=31")
        run = launched.run
        self.wait_until(lambda: self.reports(run), "a mismatch", launched)
        self.wait_until(lambda: (run.status() or {}).get("mismatched_tokens", 0) > 0,
                        "the count of it in the status", launched)
        farm.kill(launched.process.pid, signal.SIGTERM)
        result = launched.finish(60)
        self.assertEqual(result.code, 75, f"{result}{self.logs(run)}")
        self.assertRegex(run.log("actor-1"),
                         "planted fault: one weight of version 0.[0-9]+ moved by one ulp")
        self.assertNotIn("planted fault", run.log("actor-0"))
        texts = self.reports(run)
        self.assertTrue(all("actor 1" in text for text in texts), texts)
        self.assertFalse(any("actor 0" in text for text in texts), texts)


if __name__ == "__main__":
    unittest.main()
