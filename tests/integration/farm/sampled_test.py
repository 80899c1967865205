"""Samples drawn from less than the softmax: at staleness 0 every importance ratio is exactly 1, over
the whole distribution and over the one drawn from, and nothing recorded about it is unproved."""

import json
import unittest

import farm

SHORT = ("supervised.steps=20", "rl.steps=4")
SETTINGS = {
    "top_p": ("sampling.top_p=0.9",),
    "top_k": ("sampling.top_k=20",),
    "min_p": ("sampling.min_p=0.05",),
    "temperature": ("sampling.temperature=0.7",),
    "penalty": ("sampling.repetition_penalty=1.2",),
}
SETTINGS["all"] = sum(SETTINGS.values(), ())
# A tokenizer of some twenty characters: of these top_k 20 leaves nearly all.
SETTINGS["few"] = ("sampling.top_k=3",)
SAMPLED = "objective.ratio_distribution=sampled"


def learner(run):
    """The learner's numbers of the steps of the second phase."""
    return [line["learner"] for line in run.metrics() if line["phase"] == "rl"]


class Sampled(farm.FarmTest):
    def check(self, run, name):
        summary = run.summary()
        self.assertEqual(summary["mismatched_tokens"], 0, name)
        self.assertGreater(summary["tokens"]["audited"], 300)
        self.assert_sound(run)
        steps = learner(run)
        self.assertEqual(len(steps), 4)
        for step in steps:
            self.assertEqual((step["ratio_min"], step["ratio_max"]), (1, 1), name)
            self.assertEqual(step["kl_k3_behaviour"], 0, name)
        self.assertTrue(any(step["gradient_norm"] > 0 for step in steps), name)
        for words in (("replay", run.folder, "--random", 20), ("audit", run.folder)):
            done = self.command(*words)
            self.assertEqual(done.code, 0, (name, done))
        return steps

    def test_every_ratio_is_one_over_what_was_drawn_from(self):
        for name, keys in SETTINGS.items():
            steps = self.check(self.run_farm(name, *SHORT, *keys, SAMPLED), name)
            for step in steps:
                self.assertEqual(step["outside_support_share"], 0, name)
                self.assertEqual(step["kept_mass"] == 1, name == "temperature", (name, step))

    def test_every_ratio_is_one_over_the_whole_distribution(self):
        full = self.run_farm("full", *SHORT, *SETTINGS["all"])
        self.assertEqual(self.check(full, "full")[0]["kept_mass"], 1)
        # The same samples in the first step, and another gradient.
        sampled = self.run_farm("sampled", *SHORT, *SETTINGS["all"], SAMPLED)
        first = [learner(run)[0] for run in (full, sampled)]
        self.assertEqual(first[0]["reward"], first[1]["reward"])
        self.assertNotEqual(first[0]["gradient_norm"], first[1]["gradient_norm"])
        self.assertNotEqual(full.hash(), sampled.hash())

    def test_records_say_how_they_were_drawn(self):
        run = self.run_farm("records", *SHORT, *SETTINGS["all"], "eval.items=8")
        lines = [json.loads(line) for line in
                 self.command("trajectories", run.folder, "--limit", 0, "--json").out.splitlines()]
        for stream, filtered in (("train", True), ("eval", False)):
            name = next(line["id"] for line in lines if line["id"].startswith(stream))
            shown = json.loads(self.command("trajectories", run.folder, "show", name, "--json").out)
            self.assertEqual("top_k" in shown["sampling"], filtered, shown["sampling"])
            self.assertEqual(len(shown.get("kept_mass_logprobs", ())),
                             len(shown["logprobs"]) if filtered else 0)

    def test_steps_within_a_batch_go_on_over_the_own_support(self):
        several = (*SHORT, *SETTINGS["all"], SETTINGS["few"][0], SAMPLED, "rl.epochs=4",
                   "rl.learning_rate=0.003")
        one = self.run_farm("one", *several)
        two = self.run_farm("two", *several, "learner.ranks=2", "learner.micro_batch_tokens=64")
        self.assertEqual(one.hash(), two.hash())
        steps = learner(one)
        self.assertEqual(one.summary()["mismatched_tokens"], 0)
        self.assertTrue(all(step["ratio_min"] < 1 < step["ratio_max"] for step in steps), steps)
        self.assertTrue(any(step["outside_support_share"] > 0 for step in steps), steps)

    def test_what_is_not_built_is_refused_by_its_key(self):
        for key in ("objective.kl=0.1", "objective.entropy=0.1", "learner.device=cuda"):
            done = self.command("check", farm.TINY, "--set", SAMPLED, "--set", key)
            self.assertEqual(done.code, 2, done)
            self.assertIn(key.split("=")[0] + ": value", done.err)


if __name__ == "__main__":
    unittest.main()
