"""One policy everywhere: what the actors recorded, what the learner computed, and what replay,
score and generate compute again are the same bits.

THRESHER_TOKENS=1000000 compares at least so many tokens in each pair, on the model of the
quickstart (some twenty minutes); without it the smallest run, which is a few thousand.
"""

import json
import os
import struct
import subprocess
import unittest

import farm

# What it trains on with 64 groups a step, and what a round of 400 items has; less than seen.
QUICKSTART = farm.SUPPORT.parent.parent / "configs" / "quickstart.yaml"
QUICKSTART_TOKENS, QUICKSTART_ROUND_TOKENS = 250000, 30000
IDS_OF_A_CALL = 10000


def bits(logprob):
    return struct.unpack("<I", struct.pack("<f", logprob))[0]


class OnePolicy(farm.FarmTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.wanted = int(os.environ.get("THRESHER_TOKENS", "0"))

    def reference(self):
        if type(self).reference_run is None and self.wanted:
            groups = 64 * self.wanted // QUICKSTART_TOKENS + 1
            items = 400 * self.wanted // QUICKSTART_ROUND_TOKENS + 1
            launched = self.start("reference", f"rl.groups={groups}", f"eval.items={items}",
                                  config=QUICKSTART)
            launched.run.result = launched.finish(timeout=3600)
            self.assertEqual(launched.run.result.code, 0, launched.run.result)
            type(self).reference_run = launched.run
        return super().reference()

    def jsonl(self, *words, stdin=""):
        done = subprocess.run([farm.program("thresher"), *map(str, words)], input=stdin, text=True,
                              capture_output=True, timeout=3600, env=farm.environment())
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return [json.loads(line) for line in done.stdout.splitlines()]

    def score(self, model, sequences):
        asked = "".join(json.dumps({"tokens": tokens}) + "\n" for tokens in sequences)
        return [[bits(logprob) for logprob in line["logprobs"][1:]]  # nothing predicts the first
                for line in self.jsonl("score", model, stdin=asked)]

    def compare(self, what, model, sequences):
        """sequences: (tokens, bits of the logprobs of the last of them)."""
        compared = 0
        scores = self.score(model, [tokens for tokens, _ in sequences])
        for (tokens, recorded), scored in zip(sequences, scores, strict=True):
            self.assertEqual(scored[len(scored) - len(recorded):], recorded, tokens)
            compared += len(recorded)
        self.enough(what, compared)

    def enough(self, what, tokens):
        print(f"{what}: {tokens} tokens, 0 differ", flush=True)
        self.assertGreaterEqual(tokens, self.wanted or 300, what)

    def last_checkpoint(self):
        return sorted((self.reference().folder / "checkpoints").iterdir())[-1]

    def test_the_learner_finds_the_bits_of_the_actors(self):
        summary = self.reference().summary()
        self.assertEqual(summary["mismatched_tokens"], 0)
        self.enough("learner and actors", summary["tokens"]["audited"])

    def test_replay_and_score_find_the_bits_of_the_actors(self):
        run = self.reference()
        final = f"0.{int(self.last_checkpoint().name.split('_')[1])}"
        listed = self.jsonl("trajectories", run.folder, "--stream", "eval", "--limit", 0, "--json")
        ids = [line["id"] for line in listed if line["version"] == final]
        replayed = self.jsonl("replay", run.folder, "--random", 1000, "--json")  # of all versions
        for first in range(0, len(ids), IDS_OF_A_CALL):
            replayed += self.jsonl("replay", run.folder, *ids[first:first + IDS_OF_A_CALL], "--json")
        # It compares with the record by itself: one that differs is exit 1.
        self.assertTrue(all(line["equal"] for line in replayed))
        self.enough("replay and actors", sum(len(line["logprob_bits"]) for line in replayed))
        self.compare("score and actors", self.last_checkpoint(),
                     [(line["tokens"], line["logprob_bits"]) for line in replayed
                      if line["version"] == final])

    def test_score_finds_the_bits_of_generate(self):
        count = max(200, self.wanted // 8)
        prompts = [line["text"].split("=")[0] + "=" for line in
                   self.jsonl("trajectories", self.reference().folder, "--stream", "eval",
                              "--limit", 100, "--json")]
        asked = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        lines = self.jsonl("generate", self.last_checkpoint(), "--prompts", "-", "--json", "-n",
                           count // len(prompts) + 1, "--max-new-tokens", 30, stdin=asked)
        self.compare("score and generate", self.last_checkpoint(),
                     [(line["prompt_token_ids"] + line["token_ids"],
                       [bits(logprob) for logprob in line["logprobs"]]) for line in lines])


if __name__ == "__main__":
    unittest.main()
