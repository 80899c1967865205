"""What must not go unseen: a token or a weight that differs from what it should be."""

import unittest

import farm


class Planted(farm.FarmTest):
    def mismatches(self, run):
        """Sum of mismatched tokens, and the texts of the events that report them."""
        texts = [e["detail"] for e in run.events() if "mismatch" in e["event"]]
        return run.summary()["mismatched_tokens"], texts

    def test_without_a_fault_every_trained_token_is_audited_and_none_differs(self):
        run = self.reference()
        count, texts = self.mismatches(run)
        self.assertEqual((count, texts), (0, []))
        trained = sum(line["trained_tokens"] for line in run.metrics() if line["phase"] == "rl")
        self.assertEqual(run.summary()["tokens"]["audited"], trained)
        self.assertNotIn("planted fault", "".join(run.log(f"actor-{i}") for i in range(2)))

    def test_one_changed_token_gives_other_weights_and_is_counted(self):
        run = self.run_farm("token", "actors.count=1", faults="actor-0:token@item=9")
        self.assertIn("planted fault: a changed token in train/0/9/", run.log("actor-0"))
        self.assertNotEqual(run.hash(), self.reference().hash())
        count, texts = self.mismatches(run)
        self.assertGreater(count, 0)
        self.assertTrue(any("actor 0" in text for text in texts), texts)
        report = self.assert_sound(run)
        self.assertEqual(report["mismatched_tokens"], count)

    def test_one_weight_off_by_one_ulp_is_counted_and_names_the_actor(self):
        run = self.run_farm("ulp", faults="actor-1:ulp@version=31")
        self.assertIn("planted fault: one weight moved by one ulp", run.log("actor-1"))
        count, texts = self.mismatches(run)
        self.assertGreater(count, 0)
        self.assertTrue(texts and all("actor 1" in text for text in texts), texts)
        self.assertFalse(any("actor 0" in text for text in texts), texts)

    def test_replay_finds_the_changed_token(self):
        run = self.run_farm("replayed", "actors.count=1", faults="actor-0:token@item=9")
        line = next(l for l in run.log("actor-0").splitlines() if "a changed token in" in l)
        name = line.rsplit(" ", 1)[1]
        replay = self.command("replay", run.folder, name)
        self.assertEqual(replay.code, 1, replay)
        self.assertRegex(replay.out, f"{name}: differs at position [0-9]+: token")


if __name__ == "__main__":
    unittest.main()
