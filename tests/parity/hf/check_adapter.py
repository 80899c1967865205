"""Adapters of a short run, exported and loaded by PEFT on the exported base: the log-probabilities that `thresher score` gives
of the merged model, PEFT's own merged weights, and, for the start, the variance and the zeros that PEFT initialises with.

Bound: 1e-4, of float32 computed unmerged.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import peft
import torch
import transformers
from safetensors.torch import load_file

BOUND = 1e-4
TINY = pathlib.Path(__file__).resolve().parents[2] / "support" / "tiny.yaml"
TOKENS = [1, *range(5, 14)]
TOOL = None


class Adapter(unittest.TestCase):
    def thresher(self, *words, stdin=""):
        done = subprocess.run([TOOL, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def exported(self, scratch, *settings):
        run, out = scratch / "run", scratch / "out"
        words = [word for setting in ("lora.rank=4", "lora.alpha=32", "lora.phase=all", *settings) for word in ("--set", setting)]
        self.thresher("run", TINY, "--dir", run, *words)
        self.thresher("export", run, "--to", out, "--adapter")
        self.thresher("export", run, "--to", scratch / "merged")
        return out

    def compare(self, *settings):
        with tempfile.TemporaryDirectory() as folder:
            scratch = pathlib.Path(folder)
            out = self.exported(scratch, *settings)
            base = transformers.AutoModelForCausalLM.from_pretrained(out / "base", dtype=torch.float32)
            model = peft.PeftModel.from_pretrained(base, out).eval()
            scored = self.thresher("score", scratch / "merged", stdin=json.dumps({"tokens": TOKENS}) + "\n")
            ours = json.loads(scored)["logprobs"]
            with torch.no_grad():
                theirs, plain = model(torch.tensor([TOKENS])).logits[0].log_softmax(-1), None
                with model.disable_adapter():
                    plain = model(torch.tensor([TOKENS])).logits[0].log_softmax(-1)
            at = [(i, TOKENS[i]) for i in range(1, len(TOKENS))]
            farthest = max(abs(ours[i] - theirs[i - 1, token].item()) for i, token in at)
            moved = max(abs(ours[i] - plain[i - 1, token].item()) for i, token in at)
            print(f"{settings}: at most {farthest:.1e} apart; adapters move {moved:.1e}", flush=True)
            self.assertLess(farthest, BOUND)
            self.assertGreater(moved, 100 * BOUND)
            merged = model.merge_and_unload().state_dict()
            for name, tensor in load_file(scratch / "merged" / "model.safetensors").items():
                torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-6, msg=name)

    def test_the_exported_adapters_are_the_model(self):
        self.compare()

    def test_rank_stabilised_and_of_some_layers(self):
        self.compare("lora.rank_stabilised=true", "lora.targets=[q_proj, v_proj, down_proj]", "learner.freeze=model.layers.0.*")

    def test_peft_would_start_where_we_do(self):
        config = transformers.LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, vocab_size=32)
        model = peft.get_peft_model(transformers.LlamaForCausalLM(config), peft.LoraConfig(r=64, target_modules="all-linear"))
        seen = 0
        for name, tensor in model.state_dict().items():
            if "lora_B" in name:
                self.assertEqual(tensor.abs().max().item(), 0, name)
            if "lora_A" in name:
                bound = tensor.shape[1] ** -0.5
                self.assertLessEqual(tensor.abs().max().item(), bound * (1 + 1e-6), name)
                self.assertAlmostEqual(tensor.var().item() / (bound * bound / 3), 1, delta=0.1, msg=name)
                seen += 1
        self.assertEqual(seen, 7)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    known, rest = parser.parse_known_args()
    TOOL = known.tool
    unittest.main(argv=[sys.argv[0], *rest])
