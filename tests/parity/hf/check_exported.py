"""A short run, exported in float32 and bfloat16 and loaded by Transformers: the log-probabilities that `thresher score` gives.

Bound: 1e-4, of float32 over the same (widened) weights.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import torch
import transformers

BOUND = 1e-4
TINY = pathlib.Path(__file__).resolve().parents[2] / "support" / "tiny.yaml"
TOKENS = [1, *range(5, 14)]
TOOL = None


class Exported(unittest.TestCase):
    def thresher(self, *words, stdin=""):
        done = subprocess.run([TOOL, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_log_probabilities_are_the_same(self):
        with tempfile.TemporaryDirectory() as scratch:
            run = pathlib.Path(scratch) / "run"
            self.thresher("run", TINY, "--dir", run)
            for dtype in ("float32", "bfloat16"):
                out = pathlib.Path(scratch) / dtype
                self.thresher("export", run, "--to", out, "--dtype", dtype)
                scored = self.thresher("score", out, stdin=json.dumps({"tokens": TOKENS}) + "\n")
                model = transformers.AutoModelForCausalLM.from_pretrained(out, torch_dtype=torch.float32)
                with torch.no_grad():
                    theirs = model(torch.tensor([TOKENS])).logits[0].log_softmax(-1)
                ours = json.loads(scored)["logprobs"]
                farthest = max(abs(ours[i] - theirs[i - 1, TOKENS[i]].item()) for i in range(1, len(TOKENS)))
                print(f"{dtype}: at most {farthest:.1e} apart", flush=True)
                self.assertLess(farthest, BOUND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    known, rest = parser.parse_known_args()
    TOOL = known.tool
    unittest.main(argv=[sys.argv[0], *rest])
