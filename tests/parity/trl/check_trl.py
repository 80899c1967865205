"""Our objectives against the code that TRL trains with.

A GRPOTrainer and an RLOOTrainer are made with a model of a few hundred parameters, and what they would ask of the model, of
generation and of graders is given instead: log-probabilities, answers, rewards. What is compared is what TRL's
own methods make of these: advantages (`_generate_and_score_completions`), the loss (`_compute_loss`), and its derivative with
regard to each log-probability (autograd).

Where TRL's formula is another one on purpose, the difference is checked to be the one that docs/objectives.md names.
"""

import argparse
import pathlib
import sys
import tempfile
import unittest

import datasets
import numpy
import tokenizers
import torch
import transformers
import trl
from trl.rewards import get_soft_overlong_punishment

import tool
from tool import ask, random_batch, tensor

FOLDER = None  # of the tiny model
PAD, END, WORD = 0, 1, 2
BESSEL = 3e-8  # TRL's n / (n - 1) of a variance is a float32 number


def make_folder(path):
    vocabulary = {"<pad>": PAD, "<eos>": END, "x": WORD}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="x"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(path)
    config = transformers.LlamaConfig(vocab_size=3, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                      num_attention_heads=1, num_key_value_heads=1, pad_token_id=PAD, eos_token_id=END)
    transformers.LlamaForCausalLM(config).save_pretrained(path)


class Given:
    """What the trainer asks of others, as given by a batch."""

    batch = None
    policy = None     # l, a leaf of autograd
    scoring = True    # before training: the trainer asks for the old policy
    ends = None       # per answer: whether its last token is the end

    def _get_per_token_logps_and_entropies(self, model, *_, **__):
        if self.ref_model is not None and model is self.ref_model:
            return tensor(self.batch.reference), None, None
        if self.scoring:
            return tensor(self.old), None, None
        return self.policy, tensor(self.batch.entropy), None

    def _ids(self):
        ends = self.ends or [True] * self.batch.size
        return [[WORD] * (n - 1) + [END if end else WORD] for n, end in zip(self.batch.lengths, ends, strict=True)]

    def _calculate_rewards(self, *_):
        return tensor(self.batch.rewards).unsqueeze(1)

    def run(self, batch, old, advantages=None, ends=None):
        """(their advantages, loss, derivative with regard to l)."""
        self.batch, self.old, self.ends, self.scoring = batch, old, ends, True
        self.model.train()
        inputs = self._generate_and_score_completions([{"prompt": "x"} for _ in range(batch.size)])
        found = inputs["advantages"].clone()
        if advantages is not None:
            inputs["advantages"] = tensor(advantages)
        self.scoring = False
        self.policy = tensor(batch.logprob).requires_grad_()
        loss = self._compute_loss(self.model, inputs)
        loss.backward()
        return found.numpy(), loss.item(), self.policy.grad.numpy()


class Grpo(Given, trl.GRPOTrainer):
    def _generate(self, prompts):
        holes = [self.batch.in_loss[i, :n].astype(int).tolist() for i, n in enumerate(self.batch.lengths)]
        sampled = [self.batch.behaviour[i, :n].tolist() for i, n in enumerate(self.batch.lengths)]
        ids = self._ids()
        return [[WORD]] * len(prompts), ids, holes, [""] * len(ids), sampled, {}, None, []


class Rloo(Given, trl.RLOOTrainer):
    def _generate(self, prompts):
        ids = self._ids()
        return [[WORD]] * len(prompts), ids, [""] * len(ids)


def trainer(kind, config, batch, **options):
    """`num_iterations` 2: so that the trainer asks for the old policy, and has a ratio."""
    given = {"epsilon": 0.2, "beta": 0.0, "num_iterations": 2} | options
    args = config(output_dir=tempfile.gettempdir(), report_to="none", use_cpu=True, bf16=False,
                  gradient_accumulation_steps=1, per_device_train_batch_size=batch.size, num_generations=batch.group, steps_per_generation=1,
                  max_completion_length=batch.longest, **given)
    rows = datasets.Dataset.from_list([{"prompt": "x"}] * batch.size)
    made = kind(model=FOLDER, reward_funcs=lambda **_: [], args=args, train_dataset=rows)
    made.current_gradient_accumulation_steps = 1
    return made


def grpo(batch, **options):
    return trainer(Grpo, trl.GRPOConfig, batch, **({"use_bias_correction_kl": False} | options))


def longest(batch):
    return {"sampling.max_new_tokens": str(batch.longest)}


def our_advantages(batch, keys):
    sizes = [batch.group] * (batch.size // batch.group)
    asked = {"rewards": batch.rewards.tolist(), "loss_tokens": batch.loss_tokens(), "group_sizes": sizes}
    return numpy.asarray(ask(keys, advantages=asked)["advantages"])


class Presets(tool.Checks, unittest.TestCase):
    """Each preset as it stands, on batches where bounds cut off some tokens and others not."""

    def check(self, keys, options, seeds=range(3), spread=0.5):
        for seed in seeds:
            batch = random_batch(seed, spread)
            keys = keys | longest(batch)
            ours = our_advantages(batch, keys)
            theirs, loss, slope = grpo(batch, **options).run(batch, batch.behaviour, ours)
            self.same_loss(batch, ask(keys, loss=batch.sequences(ours)), loss, slope)
        return batch, ours, theirs

    def same_group_advantages(self, batch, ours, theirs):
        """TRL divides by std + 1e-4, we and the paper's code by std + 1e-6."""
        std = batch.rewards.reshape(-1, batch.group).std(1, ddof=1).repeat(batch.group)
        self.same_numbers(ours * (std + 1e-6) / (std + 1e-4), theirs, BESSEL)
        self.assertGreater(numpy.abs(ours - theirs).max(), 1e-6, "the difference is none any more")

    def test_grpo(self):
        self.same_group_advantages(*self.check({"objective.preset": "grpo"}, {"loss_type": "grpo", "beta": 0.04}))

    def test_dr_grpo(self):
        _, ours, theirs = self.check({"objective.preset": "dr_grpo"}, {"loss_type": "dr_grpo", "scale_rewards": "none"})
        self.same_numbers(ours, theirs)

    def test_dapo(self):
        self.same_group_advantages(*self.check({"objective.preset": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}))

    def test_gspo(self):
        options = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}
        self.same_group_advantages(*self.check({"objective.preset": "gspo"}, options, spread=2e-3))

    def test_cispo(self):
        """TRL's epsilon_high is the bound itself, ours its distance from 1: 5 and 4."""
        options = {"loss_type": "cispo", "epsilon_high": 5.0}
        self.same_group_advantages(*self.check({"objective.preset": "cispo"}, options, spread=2.5))


class Rewards(tool.Checks, unittest.TestCase):
    def test_rloo_advantages(self):
        for seed in range(3):
            batch = random_batch(seed, holes=False)
            theirs, *_ = trainer(Rloo, trl.RLOOConfig, batch).run(batch, batch.behaviour)
            self.same_numbers(our_advantages(batch, {"objective.preset": "rloo"}), theirs)

    def test_rloo_gradient(self):
        """At the policy that drew: TRL's ratio is of the whole sequence and not over its longest length, ours none."""
        batch = random_batch(3, holes=False)
        keys = {"objective.preset": "rloo"} | longest(batch)
        advantages = our_advantages(batch, keys)
        _, _, slope = trainer(Rloo, trl.RLOOConfig, batch).run(batch, batch.logprob)
        ours = batch.padded(ask(keys, loss=batch.sequences(advantages))["dlogprob"])
        self.same_numbers(ours * batch.longest, slope * batch.in_loss, tool.SLOPE)

    def test_penalty_in_the_reward(self):
        batch = random_batch(4, holes=False)
        keys = {"objective.preset": "rloo", "objective.kl": "0.05"}
        given = [{"behaviour": s["behaviour"], "reference": s["reference"], "in_loss": s["in_loss"]}
                 for s in batch.sequences([0.0] * batch.size)]
        penalty = [sum(row) for row in ask(keys, penalty=given)["penalty"]]
        theirs, *_ = trainer(Rloo, trl.RLOOConfig, batch, beta=0.05).run(batch, batch.behaviour)
        batch.rewards = batch.rewards - numpy.asarray(penalty)
        self.same_numbers(our_advantages(batch, keys), theirs)

    def test_overlong_penalty(self):
        lengths = list(range(1, 21))
        theirs = get_soft_overlong_punishment(20, 8)([[WORD] * n for n in lengths])
        ours = ask({}, overlong={"lengths": lengths, "longest": 20, "buffer": 8})["penalty"]
        self.same_numbers([-p for p in ours], theirs)


class Parts(tool.Checks, unittest.TestCase):
    """Choices that no preset takes."""

    def check(self, keys, options, prepare=None, spread=0.5, seed=5, old="behaviour"):
        batch = random_batch(seed, spread)
        keys = {"objective.kl": "0"} | keys | longest(batch)
        advantages = our_advantages(batch, keys)
        made = grpo(batch, **options)
        if prepare:
            prepare(made)
        _, loss, slope = made.run(batch, getattr(batch, old), advantages)
        self.same_loss(batch, ask(keys, loss=batch.sequences(advantages)), loss, slope)

    def test_dual_clip(self):
        self.check({"objective.preset": "grpo", "objective.dual_clip": "1.5"}, {"loss_type": "grpo", "delta": 1.5}, spread=1.2)

    def test_penalty_with_the_ratio(self):
        """TRL multiplies the penalty by the ratio unless told not to; the others check it without, as GRPO has it."""
        batch = random_batch(5, 0.5)
        keys = {"objective.preset": "grpo"} | longest(batch)
        advantages = our_advantages(batch, keys)
        without, theirs = (grpo(batch, loss_type="grpo", beta=0.04, use_bias_correction_kl=weighted).run(
            batch, batch.behaviour, advantages)[1] for weighted in (False, True))
        ours = ask(keys, loss=batch.sequences(advantages))["loss"]
        ratio = numpy.exp(batch.logprob - batch.behaviour)
        d = batch.logprob - batch.reference
        k3 = (numpy.exp(-d) + d - 1) * batch.in_loss
        difference = (0.04 * k3 * (ratio - 1)).sum(1) / batch.in_loss.sum(1)
        self.assertGreater(abs(without - theirs), 1e-7)
        self.assertAlmostEqual(ours + difference.mean(), theirs, delta=tool.EXACT)

    def test_entropy_bonus(self):
        self.check({"objective.preset": "dapo", "objective.entropy": "0.01"},
                   {"loss_type": "dapo", "epsilon_high": 0.28, "entropy_coef": 0.01})

    def correction(self, ours, level, mode):
        """Decoupled PPO: the ratio against a recomputed policy, weights of that against the one that drew."""

        def prepare(made):  # without vLLM itself
            made.use_vllm = made.vllm_importance_sampling_correction = True

        keys = {"objective.preset": "dapo", "objective.old": "recomputed", "objective.correction": ours,
                "objective.correction_level": level, "objective.correction_high": "1.3", "objective.correction_low": "0.8",
                "rl.epochs": "2"}
        options = {"loss_type": "dapo", "epsilon_high": 0.28, "vllm_importance_sampling_mode": mode,
                   "vllm_importance_sampling_clip_max": 1.3}
        if ours == "masked":
            options["vllm_importance_sampling_clip_min"] = 0.8
        self.check(keys, options, prepare, old="old")

    def test_truncated_by_token(self):
        self.correction("truncated", "token", "token_truncate")

    def test_masked_by_token(self):
        self.correction("masked", "token", "token_mask")

    def test_truncated_by_sequence(self):
        self.correction("truncated", "sequence", "sequence_truncate")

    def test_masked_by_sequence(self):
        self.correction("masked", "sequence", "sequence_mask")


class Differences(tool.Checks, unittest.TestCase):
    def test_answers_that_are_masked_whole(self):
        """Their loss's mean over sequences counts an answer without loss tokens, ours does not."""
        batch = random_batch(6)
        ends = [i % 3 != 0 for i in range(batch.size)]
        made = grpo(batch, loss_type="grpo", mask_truncated_completions=True)
        keys = {"objective.preset": "grpo", "objective.kl": "0"}
        advantages = our_advantages(batch, keys)
        _, loss, slope = made.run(batch, batch.behaviour, advantages, ends)
        for i, end in enumerate(ends):
            batch.in_loss[i] *= end
        reply = ask(keys, loss=batch.sequences(advantages))
        share = sum(ends) / batch.size
        scaled = {"loss": reply["loss"] * share, "dlogprob": [[x * share for x in row] for row in reply["dlogprob"]]}
        self.same_loss(batch, scaled, loss, slope)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", type=pathlib.Path, required=True)
    tool.TOOL = str(parser.parse_args().tool)
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    print(f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    global FOLDER
    with tempfile.TemporaryDirectory() as FOLDER:
        make_folder(FOLDER)
        suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
        sys.exit(not unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
