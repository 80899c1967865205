"""Compares models made and saved by Transformers, as Thresher loads them, with Transformers itself; and back.

Each case is a small model of one family with random weights (norms and biases too), saved by save_pretrained in
one of three types, in one file or in shards. Bounds, relative to the largest value compared:
  logits      2e-5 against Transformers in float32 over the same (widened) weights
  gradients   1e-4, tensor by tensor, against Transformers in float64, of a weighted sum of log-probabilities
  weights     none: what Thresher saves again is equal byte for byte, and so is what Transformers loads of that
Greedy: 200 prompts, each up to the first token whose two best float64 logits are closer than twice the logit bound;
at most MOST_TIES of the continuations may end so.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import torch
import transformers
from safetensors import safe_open

LOGITS, GRADIENT = 2e-5, 1e-4
PROMPT_LENGTHS, PROMPTS_EACH, NEW_TOKENS, MOST_TIES = (1, 4, 9, 30), 50, 32, 20
VOCAB, CONTEXT = 331, 512
TOOL = None

SHAPE = dict(vocab_size=VOCAB, hidden_size=96, intermediate_size=200, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=None,
             pad_token_id=None)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=128)
LINEAR = dict(rope_type="linear", factor=4.0)


def config_of(family, theta=10000.0, scaling=None, **changes):
    """A configuration of either major version: 4 has rope_theta beside rope_scaling, 5 rope_parameters."""
    classes = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config,
               "qwen3": transformers.Qwen3Config}
    if transformers.__version__.startswith("4."):
        rope = dict(rope_theta=theta, rope_scaling=dict(scaling) if scaling else None)
    else:
        rope = dict(rope_parameters=dict(scaling or {"rope_type": "default"}, rope_theta=theta))
    return classes[family](**(SHAPE | rope | changes))


def lively(config):
    """The model with every parameter random, sized so that signals keep their size from layer to layer."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.3 / parameter.shape[1] ** 0.5)
            else:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.2, 0.2))
    return model


def stored(folder):
    """{name: (dtype, shape, bytes)} of all tensors in a folder's safetensors files."""
    out = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                out[name] = (tensor.dtype, tuple(tensor.shape), tensor.view(torch.uint8).numpy().tobytes())
    return out


class Model(unittest.TestCase):
    """The checks of one model; subclasses say which."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = str(pathlib.Path(cls.temporary.name) / "theirs")
        made = lively(cls.config()).to(cls.dtype)
        made.save_pretrained(cls.folder, max_shard_size=cls.shards)
        cls.model = cls.load(cls.folder, torch.float32)
        cls.exact = cls.load(cls.folder, torch.float32).double()
        cls.rng = random.Random(cls.__name__)
        cls.replies = {}

    @staticmethod
    def load(folder, dtype):
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @classmethod
    def random_ids(cls, length):
        return [cls.rng.randrange(VOCAB) for _ in range(length)]

    def ours(self, **request):
        everything = {"sequences": [], "prompts": [], "new_tokens": 0, "gradient": None} | request
        reply = subprocess.run([TOOL, "answer", self.folder], input=json.dumps(everything), text=True, check=True,
                               stdout=subprocess.PIPE)
        return json.loads(reply.stdout)

    def name(self, torch_dtype):
        return str(torch_dtype).removeprefix("torch.")

    @torch.no_grad()
    def test_logits(self):
        sequences = [self.random_ids(length) for length in (1, 2, 17, 130, 400)]
        reply = self.ours(sequences=sequences)
        self.assertEqual(reply["dtype"], self.name(self.dtype))
        difference = size = error = 0.0
        for ids, rows in zip(sequences, reply["logits"], strict=True):
            mine = torch.tensor(rows, dtype=torch.float64)
            theirs = self.model(torch.tensor([ids])).logits[0].double()
            difference = max(difference, (mine - theirs).abs().max().item())
            size = max(size, theirs.abs().max().item())
            exact = self.exact(torch.tensor([ids])).logits[0]
            error = max(error, (theirs - exact).abs().max().item())
        print(f"{type(self).__name__}: logits to {size:.1f}; off by {difference / size:.2g}, theirs {error / size:.2g}")
        self.assertGreater(size, 1)
        self.assertLess(difference, LOGITS * size)

    @torch.no_grad()
    def test_greedy_text(self):
        groups = [[self.random_ids(length) for _ in range(PROMPTS_EACH)] for length in PROMPT_LENGTHS]
        mine = iter(self.ours(prompts=sum(groups, []), new_tokens=NEW_TOKENS)["greedy"])
        ties = 0
        for prompts in groups:
            ids = torch.tensor(prompts)
            theirs = self.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                         max_new_tokens=NEW_TOKENS, pad_token_id=0)
            for prompt, theirs_row in zip(prompts, theirs.tolist(), strict=True):
                continuation = next(mine)
                logits = self.exact(torch.tensor([prompt + continuation])).logits[0, len(prompt) - 1:-1]
                best, margin = logits.topk(2).values, 2 * LOGITS * logits.abs().max().item()
                tie = next((i for i, (a, b) in enumerate(best.tolist()) if a - b < margin), None)
                ties += tie is not None
                self.assertEqual(continuation[:tie], theirs_row[len(prompt):][:tie], prompt)
                self.assertEqual(len(continuation), NEW_TOKENS)
        print(f"{type(self).__name__}: {ties} of {len(PROMPT_LENGTHS) * PROMPTS_EACH} continuations end in a tie")
        self.assertLessEqual(ties, MOST_TIES)

    def test_gradients(self):
        ids = self.random_ids(151)
        weights = [self.rng.randrange(-1000, 1000) / 1024 for _ in ids[1:]]
        logprobs = torch.log_softmax(self.exact(torch.tensor([ids[:-1]])).logits[0], -1)
        chosen = logprobs.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)
        self.exact.zero_grad()
        (chosen * torch.tensor(weights, dtype=torch.float64)).sum().backward()
        mine = self.ours(gradient={"ids": ids, "weights": weights})["gradient"]
        exact = {name: parameter.grad for name, parameter in self.exact.named_parameters()}
        self.assertEqual(set(mine), set(exact))
        worst = 0.0
        for name, gradient in exact.items():
            size = gradient.abs().max().item()
            self.assertGreater(size, 1e-3, name)
            difference = torch.tensor(mine[name], dtype=torch.float64).view_as(gradient) - gradient
            worst = max(worst, difference.abs().max().item() / size)
            self.assertLess(difference.abs().max().item(), GRADIENT * size, name)
        print(f"{type(self).__name__}: gradients off by {worst:.2g}")

    def test_weights_saved_again_are_equal_byte_for_byte(self):
        for shard_bytes in (10**9, 100_000):
            with tempfile.TemporaryDirectory() as again:
                subprocess.run([TOOL, "resave", self.folder, again, self.name(self.dtype), str(shard_bytes)],
                               check=True)
                files = len(list(pathlib.Path(again).glob("*.safetensors")))
                self.assertEqual(files == 1, shard_bytes == 10**9)
                self.assertEqual(stored(again), stored(self.folder))
                loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
                    again, dtype=self.dtype, output_loading_info=True)
                for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                    self.assertFalse(report[kind], kind)
                theirs = self.load(self.folder, self.dtype).state_dict()
                self.assertEqual(set(loaded.state_dict()), set(theirs))
                for name, tensor in loaded.state_dict().items():
                    self.assertTrue(torch.equal(tensor.view(torch.uint8), theirs[name].view(torch.uint8)), name)
                self.assert_same_configuration(loaded.config)

    def assert_same_configuration(self, config):
        """What is computed; defaults that only one side writes down aside."""
        theirs = self.model.config
        for key in ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                    "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
                    "tie_word_embeddings", "hidden_act", "eos_token_id"):
            self.assertEqual(getattr(config, key), getattr(theirs, key), key)
        key = "rope_scaling" if transformers.__version__.startswith("4.") else "rope_parameters"
        self.assertEqual(getattr(config, key), getattr(theirs, key))


def case(name, family, dtype, shards="5GB", **changes):
    return type(name, (Model,), {"config": staticmethod(lambda: config_of(family, **changes)), "dtype": dtype,
                                 "shards": shards})


CASES = [
    case("Llama3Tied", "llama", torch.float32, theta=500000.0, scaling=LLAMA3, tie_word_embeddings=True),
    case("Llama3Bf16", "llama", torch.bfloat16, theta=500000.0, scaling=LLAMA3, tie_word_embeddings=False,
         shards="100KB"),
    case("LlamaGrouped", "llama", torch.float32, tie_word_embeddings=False, head_dim=24, num_attention_heads=8,
         rms_norm_eps=1e-5),
    case("LlamaLinear", "llama", torch.float16, scaling=LINEAR, num_key_value_heads=1),
    case("Qwen2Tied", "qwen2", torch.float32, theta=1000000.0, tie_word_embeddings=True),
    case("Qwen2Untied", "qwen2", torch.float32, theta=1000000.0, tie_word_embeddings=False, shards="100KB"),
    case("Qwen2F16", "qwen2", torch.float16, theta=1000000.0, tie_word_embeddings=True),
    case("Qwen3Tied", "qwen3", torch.float32, theta=1000000.0, tie_word_embeddings=True, head_dim=32),
    case("Qwen3Untied", "qwen3", torch.float32, theta=1000000.0, tie_word_embeddings=False, head_dim=16,
         num_key_value_heads=6),
    case("Qwen3Bf16", "qwen3", torch.bfloat16, theta=1000000.0, tie_word_embeddings=False, head_dim=32),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", type=pathlib.Path, required=True)
    global TOOL
    TOOL = str(parser.parse_args().tool)
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(c) for c in CASES)
    sys.exit(not unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
