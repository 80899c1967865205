"""An exported checkpoint in Transformers: the same log-probabilities."""

import json
import unittest

import farm

TOKENS = [1, *range(5, 14)]


class Exported(farm.FarmTest):
    def test_transformers_computes_the_same(self):
        try:
            import torch
            import transformers
        except ImportError as missing:
            self.skipTest(str(missing))
        out = self.scratch / "hf"
        done = self.command("export", self.reference().folder, "--to", out, "--dtype", "float32")
        self.assertEqual(done.code, 0, done)
        model = transformers.AutoModelForCausalLM.from_pretrained(out, torch_dtype=torch.float32)
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0].log_softmax(-1)
        scored = self.command("score", out, stdin=json.dumps({"tokens": TOKENS}) + "\n")
        self.assertEqual(scored.code, 0, scored)
        ours = json.loads(scored.out)["logprobs"]
        for i in range(1, len(TOKENS)):
            self.assertAlmostEqual(ours[i], logits[i - 1, TOKENS[i]].item(), places=4)


if __name__ == "__main__":
    unittest.main()
