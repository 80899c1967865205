"""What both checks share: our side's answers, and random batches whose numbers float32 holds exactly.

The tool takes log-probabilities as float32, as a learner has them, and works in double from there on. So do the
other trainers here: their tensors are the same numbers as float64, and what is left is rounding of double sums (EXACT),
and of derivatives that ours writes as float32 (SLOPE).
"""

import dataclasses
import json
import subprocess

import numpy
import torch

EXACT = 1e-12
SLOPE = 3e-7  # of the largest: half a unit in the last place of float32 is 6e-8 of the number itself

TOOL = None


def ask(keys, **what):
    """The tool's answer to one request."""
    done = subprocess.run([TOOL], input=json.dumps([{"keys": keys, **what}]), text=True, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)[0]


def float32(values):
    return numpy.asarray(values, dtype=numpy.float32).astype(numpy.float64)


@dataclasses.dataclass
class Batch:
    """Groups of answers; arrays are [samples, longest], zero beyond an answer's length."""

    group: int
    lengths: list
    rewards: numpy.ndarray
    in_loss: numpy.ndarray     # 1 where a token counts
    logprob: numpy.ndarray     # l
    behaviour: numpy.ndarray   # b
    old: numpy.ndarray         # o, where it is not b
    reference: numpy.ndarray   # f
    entropy: numpy.ndarray     # H

    @property
    def size(self):
        return len(self.lengths)

    @property
    def longest(self):
        return self.in_loss.shape[1]

    def loss_tokens(self):
        return [int(n) for n in self.in_loss.sum(1)]

    def sequences(self, advantages):
        """For the tool; advantages: [samples], or [samples, longest]."""
        out = []
        for i, length in enumerate(self.lengths):
            of = {name: getattr(self, name)[i, :length].tolist()
                  for name in ("logprob", "behaviour", "old", "reference", "entropy")}
            of["in_loss"] = self.in_loss[i, :length].astype(int).tolist()
            given = numpy.asarray(advantages[i])
            of |= {"advantages": given[:length].tolist()} if given.ndim else {"advantage": float(given)}
            out.append(of)
        return out

    def padded(self, rows):
        """The tool's ragged rows as an array like the others."""
        out = numpy.zeros(self.in_loss.shape)
        for i, row in enumerate(rows):
            out[i, :len(row)] = row
        return out


def random_batch(seed, spread=0.3, holes=True, samples=12, group=4, longest=10):
    """`spread`: how far o, b lie from l; `holes`: tokens inside an answer that do not count."""
    random = numpy.random.default_rng(seed)
    lengths = [int(n) for n in random.integers(1, longest + 1, samples)]
    lengths[0] = longest
    inside = numpy.arange(longest)[None, :] < numpy.asarray(lengths)[:, None]
    counted = inside & ((random.random(inside.shape) > 0.25) if holes else True)
    counted[:, 0] = True

    def field(low, high):
        return float32(random.uniform(low, high, inside.shape)) * inside

    logprob = field(-3, -0.1)
    near = [float32(logprob + random.uniform(-spread, spread, inside.shape)) * inside for _ in range(2)]
    reference = float32(logprob + random.uniform(-0.5, 0.5, inside.shape)) * inside
    rewards = float32(random.choice([0.0, 0.1, 1.0], samples) + random.uniform(0, 0.05, samples))
    return Batch(group, lengths, rewards, counted.astype(float), logprob, near[0], near[1], reference, field(0.1, 2))


def tensor(array):
    return torch.tensor(numpy.asarray(array), dtype=torch.float64)


class Checks:
    """Comparisons for a unittest.TestCase."""

    def same_numbers(self, ours, theirs, tolerance=EXACT):
        ours, theirs = numpy.asarray(ours, dtype=float), numpy.asarray(theirs, dtype=float)
        self.assertEqual(ours.shape, theirs.shape)
        size = max(1e-30, numpy.abs(theirs).max())
        self.assertGreater(size, 1e-12, "nothing is compared")
        worst = numpy.abs(ours - theirs).max() / size
        self.assertLessEqual(worst, tolerance)

    def same_loss(self, batch, reply, loss, slope):
        """`slope`: their derivative with regard to l."""
        self.assertLessEqual(abs(reply["loss"] - float(loss)), EXACT * max(1.0, abs(float(loss))))
        self.same_numbers(batch.padded(reply["dlogprob"]), slope, SLOPE)
