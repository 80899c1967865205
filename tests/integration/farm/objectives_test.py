"""Every preset trains, from the same samples; several optimiser steps on a batch are the same on any number of ranks."""

import unittest

import farm

PRESETS = ("grpo", "dr_grpo", "rloo", "reinforce_pp", "dapo", "gspo", "cispo", "raft", "ppo", "vtrace_impala")
SHORT = ("supervised.steps=20", "rl.steps=4", "eval.items=0")

# So early no answer is right: those are accepted that can be read.
MORE = {"dapo": ("rl.drop_zero_variance=true", "rl.max_rounds=2"), "raft": ("objective.accept=0",)}


def learner(run):
    """The learner's numbers of the steps of the second phase."""
    return [line["learner"] for line in run.metrics() if line["phase"] == "rl"]


class Objectives(farm.FarmTest):
    def test_every_preset_trains_in_its_own_way(self):
        hashes = {}
        for preset in PRESETS:
            run = self.run_farm(preset, *SHORT, f"objective.preset={preset}", *MORE.get(preset, ()))
            summary = run.summary()
            self.assertEqual(summary["mismatched_tokens"], 0, preset)
            self.assert_sound(run)
            steps = learner(run)
            self.assertTrue(any(step["gradient_norm"] > 0 for step in steps), (preset, steps))
            for step in steps:
                if "ratio_min" in step:  # something of the batch was in the loss
                    self.assertEqual((step["ratio_min"], step["ratio_max"]), (1, 1), preset)
                    self.assertAlmostEqual(step["ess"], 1, msg=preset)
                    self.assertEqual(step["clip_fraction"], 0, preset)
            hashes.setdefault(run.hash(), []).append(preset)
        # With one step a batch every ratio is 1: what differs is estimator, aggregate, penalty and what is drawn.
        self.assertEqual([presets for presets in hashes.values() if len(presets) > 1], [])

    def test_steps_within_a_batch_leave_the_policy_that_drew(self):
        several = ("rl.epochs=2", "rl.minibatches=2")
        one = self.run_farm("one", *SHORT, *several)
        two = self.run_farm("two", *SHORT, *several, "learner.ranks=2")
        self.assertEqual(one.hash(), two.hash())
        self.assertNotEqual(one.hash(), self.run_farm("plain", *SHORT).hash())
        steps = learner(one)
        self.assertEqual(one.summary()["mismatched_tokens"], 0)  # the first step of each batch is audited
        self.assertTrue(all(step["ratio_min"] < 1 < step["ratio_max"] for step in steps), steps)
        self.assertTrue(all(step["kl_k3_behaviour"] > 0 and step["ess"] < 1 for step in steps), steps)

    def test_the_recomputed_policy_is_that_of_the_first_pass(self):
        # On policy both are the same bits; so is every correction 1.
        recorded = self.run_farm("recorded", *SHORT, "rl.epochs=3")
        recomputed = self.run_farm("recomputed", *SHORT, "rl.epochs=3", "objective.old=recomputed",
                                   "objective.correction=masked", "objective.correction_low=1",
                                   "objective.correction_high=1", "learner.ranks=2")
        self.assertEqual(recorded.hash(), recomputed.hash())
        self.assertTrue(all(step["correction_mean"] == 1 for step in learner(recomputed)))

    def test_long_answers_cost_or_do_not_count(self):
        run = self.run_farm("long", *SHORT, "sampling.max_new_tokens=8", "objective.mask_truncated=true",
                            "objective.overlong_share=0.5", "objective.overlong_penalty=2", "learner.ranks=2")
        self.assert_sound(run)
        lines = [line for line in run.metrics() if line["phase"] == "rl"]
        self.assertTrue(any(line["trained"]["truncated_share"] > 0 for line in lines))
        for line in lines:
            step, cut = line["learner"], line["trained"]["truncated_share"] * line["batch"]
            # Each that was cut off has 8 tokens; at its longest an answer costs 2, and nobody more.
            self.assertEqual(step["loss_tokens"], line["trained_tokens"] - 8 * round(cut))
            self.assertGreaterEqual(step["reward"] - step["reward_shaped"], 2 * cut / line["batch"] - 1e-9)
            self.assertLessEqual(step["reward"] - step["reward_shaped"], 2)

    def test_a_bonus_on_entropy_keeps_it_up(self):
        plain = self.run_farm("without", *SHORT, "rl.steps=8")
        bonus = self.run_farm("with", *SHORT, "rl.steps=8", "objective.entropy=0.5")
        self.assertEqual(bonus.summary()["mismatched_tokens"], 0)
        first, last = (learner(bonus)[i]["entropy"] - learner(plain)[i]["entropy"] for i in (0, -1))
        self.assertEqual(first, 0)  # before the first step of the phase they are one policy
        self.assertGreater(last, 0.01)

    def test_a_penalty_holds_the_policy_near_its_reference(self):
        free = self.run_farm("free", *SHORT, "rl.steps=8")
        held = self.run_farm("held", *SHORT, "rl.steps=8", "objective.kl=5", "objective.kl_estimator=k2")
        renewed = self.run_farm("renewed", *SHORT, "rl.steps=8", "objective.kl=5", "objective.reference_every=2")
        self.assertNotEqual(free.hash(), held.hash())
        drift = [step["kl_k3_reference"] for step in learner(renewed)]
        self.assertEqual([drift[i] == 0 for i in (0, 2, 4, 6)], [True] * 4, drift)
        self.assertTrue(all(d > 0 for d in drift[1::2]), drift)

    def test_a_penalty_in_the_reward_is_the_same_on_any_number_of_ranks(self):
        strong = {"rloo": "objective.kl=5", "ppo": "objective.kl=5"}
        for preset, kl in strong.items():
            own = (*SHORT, "rl.steps=6", f"objective.preset={preset}", "objective.kl_in=reward",
                   "objective.kl_estimator=k1")
            free = self.run_farm(f"{preset}-free", *own)
            one = self.run_farm(f"{preset}-one", *own, kl)
            two = self.run_farm(f"{preset}-two", *own, kl, "learner.ranks=2", "learner.micro_batch_tokens=48")
            self.assertEqual(one.hash(), two.hash())
            self.assertNotEqual(one.hash(), free.hash())
            self.assertEqual(one.summary()["mismatched_tokens"], 0)
            penalties = [step["reward_penalty"] for step in learner(one)]
            self.assertEqual(penalties[0], 0)  # the policy that drew is the reference
            self.assertTrue(all(penalties[1:]), penalties)
            for step in learner(one):
                shaped = step["reward"] - (0 if preset == "ppo" else step["reward_penalty"])
                self.assertAlmostEqual(step["reward_shaped"], shaped)
            self.assertTrue(all("reward_penalty" not in step for step in learner(free)))

    def test_short_answers_gain(self):
        run = self.run_farm("short", *SHORT, "objective.length_reward=1", "objective.accept=0", "learner.ranks=2")
        self.assert_sound(run)
        # Every answer is correct enough, so a group's gains run from 1/2 to -1/2 wherever lengths differ.
        self.assertTrue(any(step["reward_shaped"] != step["reward"] for step in learner(run)))
        self.assertNotEqual(run.hash(), self.run_farm("plain", *SHORT).hash())

    def test_a_critic_learns_beside_the_policy_on_any_number_of_ranks_and_through_any_death(self):
        more = {"ppo": ("rl.epochs=2", "rl.minibatches=2"), "vtrace_impala": ("objective.critic_warmup_steps=1",)}
        for preset, own in more.items():
            own = (*SHORT, "rl.steps=6", "checkpoint.every=2", f"objective.preset={preset}", *own)
            plain = self.run_farm(f"{preset}-plain", *own)
            ranks = self.run_farm(f"{preset}-ranks", *own, "learner.ranks=2", "learner.micro_batch_tokens=48")
            died = self.run_farm(f"{preset}-died", *own, faults="learner-0:kill@step=25")
            self.assertRegex(died.log("learner"), "resuming after step 2[24]")
            last = "checkpoints/step_000026"
            for run in (ranks, died):
                self.assertEqual(run.hash(), plain.hash(), run.folder)
                for file in ("trainer/critic.safetensors", "trainer/optimizer.safetensors"):
                    self.assertEqual((run.folder / last / file).read_bytes(), (plain.folder / last / file).read_bytes())
            self.assertNotIn(b"value_head", (plain.folder / last / "model.safetensors").read_bytes())
            steps = learner(plain)
            self.assertEqual(steps[0]["value_mean"], 0)  # its head starts at zero
            self.assertTrue(all(step["value_loss"] > 0 and step["value_mean"] != 0 for step in steps[1:]), steps)
            self.assertTrue(all((step["explained_variance"] or 0) <= 1 for step in steps), steps)

    def test_while_the_critic_warms_up_the_policy_stays(self):
        for preset in ("ppo", "vtrace_impala"):
            run = self.run_farm(f"{preset}-warm", *SHORT, f"objective.preset={preset}", "objective.critic_warmup_steps=2")
            lines = run.metrics()
            before = next(line for line in lines if line["step"] == 19)["state_hash"]
            hashes = [line["state_hash"] for line in lines if line["phase"] == "rl"]
            self.assertEqual([h == before for h in hashes], [True, True, False, False], preset)
            self.assertEqual([step["skipped_steps"] for step in learner(run)], [0] * 4)
            self.assertNotEqual(learner(run)[2]["value_mean"], 0)
            self.assertTrue(all(step["kl_k3_behaviour"] == 0 for step in learner(run)))


if __name__ == "__main__":
    unittest.main()
