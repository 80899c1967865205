"""Our objectives against verl's functions for PPO and its kin (`verl.trainer.ppo.core_algos`).

Those are functions of tensors, but importing them the ordinary way asks for Ray, Hydra and whatever else a cluster needs. So
the two files that hold them are loaded from the installed package as they are, and what they import of no use here is
stood in for by `stand_ins`.
"""

import argparse
import importlib
import pathlib
import sys
import types
import unittest

import numpy
import torch

import tool
from tool import ask, random_batch, tensor

# verl adds 1e-8 to denominators that count tokens, of which a batch has at least one.
COUNTED = 2e-8


def find_verl():
    for folder in map(pathlib.Path, sys.path):
        if (folder / "verl/trainer/ppo/core_algos.py").is_file():
            return folder / "verl"
    sys.exit("verl is not installed")


class ActorConfig(types.SimpleNamespace):
    def get(self, name, other):
        return getattr(self, name, other)


class AlgoConfig(types.SimpleNamespace):
    pass


def stand_ins(root):
    """Packages whose __init__ is not run, and names that are imported and not used by what is called here."""

    def module(name, folder=None, **names):
        made = types.ModuleType(name)
        if folder:
            made.__path__ = [str(folder)]
        vars(made).update(names)
        sys.modules[name] = made
        return made

    for name in ("verl", "verl.trainer", "verl.trainer.ppo", "verl.workers"):
        module(name, root.joinpath(*name.split(".")[1:]))
    module("omegaconf", DictConfig=dict)
    module("tensordict", TensorDict=dict)
    module("verl.trainer.config", AlgoConfig=AlgoConfig)
    module("verl.workers.config", ActorConfig=ActorConfig)
    utilities = module("verl.utils", root / "utils")
    module("verl.utils.device", get_device_name=lambda: "cpu", get_torch_device=lambda: torch.cpu)
    groupwise = importlib.import_module("verl.utils.groupwise")
    utilities.as_torch_index, utilities.group_mean_std = groupwise.as_torch_index, groupwise.group_mean_std


def load():
    stand_ins(find_verl())
    return importlib.import_module("verl.trainer.ppo.core_algos")


core = None


def our_advantages(batch, estimator):
    sizes = [batch.group] * (batch.size // batch.group)
    asked = {"rewards": batch.rewards.tolist(), "loss_tokens": batch.loss_tokens(), "group_sizes": sizes}
    return numpy.asarray(ask({"objective.advantage": estimator}, advantages=asked)["advantages"])


def last_tokens(batch):
    """Each reward where the last loss token stands."""
    out = numpy.zeros(batch.in_loss.shape)
    for i in range(batch.size):
        out[i, numpy.flatnonzero(batch.in_loss[i])[-1]] = batch.rewards[i]
    return tensor(out)


class Advantages(tool.Checks, unittest.TestCase):
    def check(self, estimator, function, **options):
        for seed in range(3):
            batch = random_batch(seed)
            mask = tensor(batch.in_loss)
            index = numpy.repeat(numpy.arange(batch.size // batch.group), batch.group)
            if "index" in function.__code__.co_varnames[: function.__code__.co_argcount]:
                options["index"] = index
            theirs, _ = function(token_level_rewards=last_tokens(batch), response_mask=mask,
                                 config=AlgoConfig(gamma=1.0), **options)
            ours = our_advantages(batch, estimator)[:, None] * batch.in_loss
            self.same_numbers(ours, theirs.numpy() * batch.in_loss, 1e-8)

    def test_grpo(self):
        self.check("group", core.compute_grpo_outcome_advantage)

    def test_dr_grpo(self):
        self.check("group_mean", core.compute_grpo_outcome_advantage, norm_adv_by_std_in_grpo=False)

    def test_rloo(self):
        self.check("leave_one_out", core.compute_rloo_outcome_advantage)

    def test_reinforce_pp(self):
        self.check("batch", core.compute_reinforce_plus_plus_outcome_advantage)

    def test_reinforce_pp_with_baseline(self):
        self.check("batch_baseline", core.compute_reinforce_plus_plus_baseline_outcome_advantage)


class Critic(tool.Checks, unittest.TestCase):
    KEYS = {"objective.preset": "ppo"}

    def tokens(self, batch, rows):
        return [row[mask > 0].tolist() for row, mask in zip(numpy.asarray(rows), batch.in_loss, strict=True)]

    def flat(self, batch, rows):
        return numpy.concatenate(self.tokens(batch, rows))

    def test_generalised_advantages(self):
        for seed, gamma, lam in ((0, 1.0, 0.95), (1, 0.9, 0.8), (2, 1.0, 1.0)):
            batch = random_batch(seed)
            rewards, values = last_tokens(batch), tensor(batch.entropy) - 1
            keys = self.KEYS | {"objective.gamma": str(gamma), "objective.gae_lambda": str(lam)}
            asked = [{"reward": r, "value": v} for r, v in
                     zip(self.tokens(batch, rewards), self.tokens(batch, values), strict=True)]
            ours = ask(keys, gains=asked)
            advantages, returns = core.compute_gae_advantage_return(rewards, values, tensor(batch.in_loss), gamma, lam)
            self.same_numbers(numpy.concatenate(ours["target"]), self.flat(batch, returns))
            self.same_numbers(numpy.concatenate(ours["advantage"]), self.flat(batch, advantages), 1e-8)

    def test_value_loss(self):
        batch = random_batch(4)
        value, first, target = batch.entropy, batch.entropy + batch.behaviour - batch.logprob, batch.reference
        tokens = numpy.stack([self.flat(batch, rows) for rows in (value, first, target)], 1)
        ours = ask(self.KEYS, value_loss=[dict(zip(("value", "first", "target"), t, strict=True)) for t in tokens.tolist()])
        learned = tensor(value).requires_grad_()
        loss, _ = core.compute_value_loss(learned, tensor(target), tensor(first), tensor(batch.in_loss), 0.2)
        loss.backward()
        self.assertAlmostEqual(numpy.mean(ours["loss"]), loss.item(), delta=tool.EXACT)
        self.same_numbers(numpy.asarray(ours["slope"]) / len(tokens), self.flat(batch, learned.grad))


class Losses(tool.Checks, unittest.TestCase):
    AGGREGATES = {"token_mean": "token-mean", "sequence_mean": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}

    def check(self, keys, function, spread, by_token=False, **bounds):
        for ours, theirs in self.AGGREGATES.items():
            batch = random_batch(5, spread)
            advantages = our_advantages(batch, "group")
            if by_token:
                advantages = advantages[:, None] + batch.entropy - 1
            scale = {"loss_scale_factor": batch.longest} if ours == "constant" else {}
            config = ActorConfig(global_batch_info=scale, clip_ratio=0.2, **bounds)
            policy = tensor(batch.logprob).requires_grad_()
            given = tensor(advantages if by_token else advantages[:, None] * numpy.ones(batch.in_loss.shape))
            loss, _ = function(tensor(batch.behaviour), policy, given, tensor(batch.in_loss), theirs, config)
            loss.backward()
            asked = keys | {"objective.aggregate": ours, "objective.kl": "0", "sampling.max_new_tokens": str(batch.longest)}
            reply = ask(asked, loss=batch.sequences(advantages))
            self.assertAlmostEqual(reply["loss"], loss.item(), delta=COUNTED * max(1, abs(loss.item())))
            self.same_numbers(batch.padded(reply["dlogprob"]), policy.grad, tool.SLOPE)

    def test_clip(self):
        """verl's dual clip is always on, at 3 unless told otherwise."""
        self.check({"objective.preset": "grpo", "objective.dual_clip": "3"}, core.compute_policy_loss_vanilla, 1.5,
                   clip_ratio_low=None, clip_ratio_high=None)

    def test_clip_of_dapo(self):
        self.check({"objective.preset": "dapo", "objective.dual_clip": "1.5"}, core.compute_policy_loss_vanilla, 1.2,
                   clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=1.5)

    def test_ppo_with_advantages_of_tokens(self):
        self.check({"objective.preset": "ppo", "objective.dual_clip": "3"}, core.compute_policy_loss_vanilla, 1.5, by_token=True,
                   clip_ratio_low=None, clip_ratio_high=None)

    def test_gspo(self):
        self.check({"objective.preset": "gspo"}, core.compute_policy_loss_gspo, 2e-3, clip_ratio_low=3e-4, clip_ratio_high=4e-4)

    def test_cispo(self):
        self.check({"objective.preset": "cispo"}, core.compute_policy_loss_cispo, 2.5, clip_ratio_low=1.0, clip_ratio_high=4.0)

    def test_penalties(self):
        batch = random_batch(6)
        zero = numpy.zeros(batch.size)
        for estimator in ("k2", "k3"):
            keys = {"objective.preset": "dapo", "objective.kl": "0.1", "objective.kl_estimator": estimator}
            reply = ask(keys, loss=batch.sequences(zero))
            policy = tensor(batch.logprob).requires_grad_()
            penalty = core.kl_penalty(policy, tensor(batch.reference), estimator)
            loss = 0.1 * core.agg_loss(penalty, tensor(batch.in_loss), "token-mean")
            loss.backward()
            self.same_loss(batch, reply, loss.item(), policy.grad)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", type=pathlib.Path, required=True)
    tool.TOOL = str(parser.parse_args().tool)
    torch.set_num_threads(1)
    global core
    core = load()
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    sys.exit(not unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
