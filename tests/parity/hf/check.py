"""Compares a model folder written by Thresher, as Hugging Face reads it, with Thresher's own answers.

Per folder: AutoModelForCausalLM and AutoTokenizer (but see MISREAD_AS) load it; ids of 1,000 strings and text of 200 id
sequences are equal; logits agree within float32 rounding; greedy continuations of 20 prompts are
equal up to ties. Folders: random weights of all families, tied and untied, and the one named by
THRESHER_TEST_CHECKPOINT, if any.

Bound of the logits. Both sides evaluate one formula in float32 and differ in the order of sums alone,
so each is off the float64 result by an error of the same size. Hugging Face's own model, run in
float64, tells how large its float32 error is; ours may be FACTOR times that (a maximum over
thousands of random errors varies little, but the number of roundings in a row differs: long chains
here, blocked sums there).
Ties: a continuation is compared up to the first token whose two best float64 logits are closer than
twice the sum of both bounds; at most MOST_TIES of the prompts may end so.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import torch
import transformers

FACTOR = 3
STRINGS, PROMPTS, NEW_TOKENS, MOST_TIES = 1000, 20, 40, 5
TOOL = None
# What AutoTokenizer makes of a Qwen2 folder since Transformers 5: Qwen's own rules over the vocabulary of
# tokenizer.json, whose rules it drops. PreTrainedTokenizerFast reads the file as it stands.
MISREAD_AS = "Qwen2Tokenizer"

NASTY = [
    "", " ", "  ", "\n", "\r\n", "\t", "\0", "a\0b", " leading", "trailing ", "a  b", "\u00a0", "\u200b",
    "<pad>", "<bos>", "<eos>", "<unk>", "<bos><eos>", "<bos", "bos>", "<<bos>>", "<<bos", "< bos >", "<BOS>",
    "<bos> 1", "1 <bos>", " <eos> ", "1<unk>2", "<pad><pad>", "<|endoftext|>", "</s>", "<s>", "[UNK]", "##a",
    "\u2581a", "\u0120a", "\u00e9", "e\u0301", "\u20ac", "\U0001f600", "\U0001f468\u200d\U0001f469",
    "\u4e2d\u6587", "\u0627\u0644", "\ufeff1", "\ufffd", "\U0010ffff", "\ue000", "don't", "it 's", "1 , 2 .",
    "a ' b", "do n't", " . ", "x" * 5000, "12" * 3000, "\U0001f600" * 200, "<bos>" * 100, "e\u0301" * 50,
    "1+2=3,3*4=12;", "\\n", "\"quoted\"", "&lt;bos&gt;", "\x7f\x80\x9f", "\ud7ff\ue000",
]


def strings_of(tokenizer, rng):
    """NASTY, then random mixtures of known characters, special tokens and any Unicode."""
    known = [t for t in tokenizer.get_vocab()]
    out = list(NASTY)
    while len(out) < STRINGS:
        parts = []
        for _ in range(rng.randrange(40)):
            kind = rng.randrange(10)
            if kind < 6:
                parts.append(rng.choice(known))
            elif kind < 7:
                parts.append(rng.choice(["<", ">", " ", "\n", "<b", "os>", "<eos", "<unk>>"]))
            elif kind < 9:
                parts.append(chr(rng.randrange(0x250)))
            else:
                code = rng.randrange(0x110000)
                parts.append(chr(code) if not 0xD800 <= code < 0xE000 else "?")
        out.append("".join(parts))
    return out


def load_tokenizer(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if transformers.__version__.startswith("5.") and type(tokenizer).__name__ == MISREAD_AS:
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def ours(folder, **request):
    """The tool's reply; what is not asked for is empty."""
    everything = {"strings": [], "ids": [], "sequences": [], "prompts": [], "new_tokens": 0} | request
    reply = subprocess.run([TOOL, "dump", folder], input=json.dumps(everything), text=True, check=True,
                           stdout=subprocess.PIPE)
    return json.loads(reply.stdout)


class Folder(unittest.TestCase):
    """The checks of one folder; subclasses say which."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = cls.make(cls.temporary.name)
        cls.tokenizer = load_tokenizer(cls.folder)
        cls.model = transformers.AutoModelForCausalLM.from_pretrained(cls.folder).eval()
        cls.exact = transformers.AutoModelForCausalLM.from_pretrained(cls.folder).double().eval()
        cls.rng = random.Random(cls.__name__)
        cls.valid = len(cls.tokenizer)

    @classmethod
    def random_ids(cls, length):
        return [cls.rng.randrange(cls.valid) for _ in range(length)]

    @classmethod
    @torch.no_grad()
    def logits(cls, model, ids):
        return model(torch.tensor([ids])).logits[0, :, : cls.valid].double()

    def test_weights_are_float32_and_complete(self):
        self.assertEqual(self.model.dtype, torch.float32)
        _, report = transformers.AutoModelForCausalLM.from_pretrained(self.folder, output_loading_info=True)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            self.assertFalse(report[kind], kind)

    def test_ids_of_strings_are_equal(self):
        strings = strings_of(self.tokenizer, self.rng)
        mine = ours(self.folder, strings=strings)["encoded"]
        self.assertEqual(len(strings), STRINGS)
        for string, ids in zip(strings, mine, strict=True):
            self.assertEqual(self.tokenizer(string)["input_ids"], ids, repr(string))
            self.assertEqual(self.tokenizer.encode(string, add_special_tokens=False), ids, repr(string))

    def test_text_of_ids_is_equal(self):
        sequences = [self.random_ids(self.rng.randrange(60)) for _ in range(200)]
        mine = ours(self.folder, ids=sequences)["decoded"]
        for ids, text in zip(sequences, mine, strict=True):
            self.assertEqual(self.tokenizer.decode(ids, skip_special_tokens=True), text, ids)

    def test_tokenizer_feeds_the_model(self):
        self.assertEqual(set(self.tokenizer("1+2")), {"input_ids", "attention_mask"})

    def test_special_tokens_are_named(self):
        names = (self.tokenizer.pad_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id,
                 self.tokenizer.unk_token_id)
        self.assertEqual(names, (0, 1, 2, 3))
        self.assertEqual(self.model.generation_config.eos_token_id, 2)

    def bounds(self):
        """(largest float32 error of Hugging Face, of ours) against float64, over several sequences."""
        longest = min(300, self.model.config.max_position_embeddings)
        sequences = [self.random_ids(length) for length in (1, 2, 17, 64, longest)]
        mine = ours(self.folder, sequences=sequences)["logits"]
        theirs_error = ours_error = 0.0
        for ids, rows in zip(sequences, mine, strict=True):
            exact = self.logits(self.exact, ids)
            theirs_error = max(theirs_error, (self.logits(self.model, ids) - exact).abs().max().item())
            ours_error = max(ours_error, (torch.tensor(rows, dtype=torch.float64) - exact).abs().max().item())
        return theirs_error, ours_error, exact.abs().max().item()

    def test_logits_are_equal_within_float32(self):
        theirs, mine, size = self.bounds()
        print(f"{type(self).__name__}: logits to {size:.1f}; error {theirs:.2g} theirs, {mine:.2g} ours")
        self.assertGreater(size, 1)
        self.assertLess(theirs, 1e-4 * size, "the bound itself is not sharp")
        self.assertLessEqual(mine, FACTOR * theirs)

    @torch.no_grad()
    def test_greedy_continuations_are_equal(self):
        margin = 2 * (1 + FACTOR) * self.bounds()[0]
        prompts = [[1] + self.random_ids(self.rng.randrange(1, 30)) for _ in range(PROMPTS)]
        mine = ours(self.folder, prompts=prompts, new_tokens=NEW_TOKENS)["greedy"]
        ties = 0
        for prompt, continuation in zip(prompts, mine, strict=True):
            ids = torch.tensor([prompt])
            theirs = self.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                         max_new_tokens=NEW_TOKENS, suppress_tokens=self.spare())
            theirs = theirs[0, len(prompt):].tolist()
            best = self.logits(self.exact, prompt + continuation)[len(prompt) - 1:-1].topk(2).values
            tie = next((i for i, (a, b) in enumerate(best.tolist()) if a - b < margin), None)
            ties += tie is not None
            self.assertEqual(continuation[:tie], theirs[:tie], prompt)
        print(f"{type(self).__name__}: {ties} of {PROMPTS} continuations end in a tie (margin {margin:.2g})")
        self.assertLessEqual(ties, MOST_TIES)

    def spare(self):
        """Ids beyond the tokenizer, which our sampler never draws."""
        return list(range(self.valid, self.model.config.vocab_size)) or None


def random_folder(family, tied):
    class RandomWeights(Folder):
        @classmethod
        def make(cls, temporary):
            subprocess.run([TOOL, "make", temporary, family, "tied" if tied else "untied"], check=True)
            return temporary

        def test_family_and_tying(self):
            self.assertEqual(self.model.config.model_type, "llama" if family == "llama3" else family)
            shared = self.model.lm_head.weight.data_ptr() == self.model.model.embed_tokens.weight.data_ptr()
            self.assertEqual(shared, tied)

    RandomWeights.__name__ = f"{family.capitalize()}{'Tied' if tied else 'Untied'}"
    return RandomWeights


class Checkpoint(Folder):
    @classmethod
    def make(cls, temporary):
        return os.environ["THRESHER_TEST_CHECKPOINT"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", type=pathlib.Path, required=True)
    global TOOL
    TOOL = str(parser.parse_args().tool)
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    classes = [random_folder(family, tied) for family in ("llama", "llama3", "qwen2", "qwen3") for tied in (True, False)]
    if os.environ.get("THRESHER_TEST_CHECKPOINT"):
        classes.append(Checkpoint)
    loader = unittest.defaultTestLoader
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(c) for c in classes)
    sys.exit(not unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
