"""The same step in plain PyTorch: autograd, fused AdamW, DistributedDataParallel over gloo.

  torch_step.py JSON     {"shape": {...}, "tokens", "sequences", "leaves", "threads", "ranks", "weights"}

A line in, a step done, a line of figures out, as learner_tool. With several ranks this process is
rank 0 and starts the others. A leaf is a micro-batch: gradients of a rank's leaves accumulate, and
DDP reduces them in the backward pass of the last one.
"""

import contextlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

EPS, THETA = 1e-5, 10000.0


class Layer(nn.Module):
    """Products of several matrices with one input are one product, attention is torch's own."""

    def __init__(self, shape, take):
        super().__init__()
        d, f = shape["width"], shape["ffn_width"]
        self.heads, self.kv_heads = shape["heads"], shape["kv_heads"]
        self.head_dim = d // self.heads
        q, kv = d, self.kv_heads * self.head_dim
        self.input_norm = take(d)
        self.qkv = take(q + 2 * kv, d)
        self.o = take(d, q)
        self.post_norm = take(d)
        self.gate_up = take(2 * f, d)
        self.down = take(d, f)

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        h = F.rms_norm(x, (d,), self.input_norm, EPS)
        qkv = F.linear(h, self.qkv).view(b, t, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v,
                                           is_causal=True, enable_gqa=True)
        x = x + F.linear(a.transpose(1, 2).reshape(b, t, -1), self.o)
        gate, up = F.linear(F.rms_norm(x, (d,), self.post_norm, EPS), self.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Model(nn.Module):
    def __init__(self, shape, weights):
        super().__init__()
        flat, at = torch.from_numpy(numpy.fromfile(weights, dtype=numpy.float32)), 0

        def take(*sizes):
            nonlocal at
            count = math.prod(sizes)
            at += count
            return nn.Parameter(flat[at - count:at].view(*sizes).clone())

        self.embedding = take(shape["vocab"], shape["width"])
        self.layers = nn.ModuleList(Layer(shape, take) for _ in range(shape["layers"]))
        self.norm = take(shape["width"])
        assert at == flat.numel(), "weights of another model"
        self.half = shape["width"] // shape["heads"] // 2

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1], dtype=torch.float32)
        angles = positions[:, None] * THETA ** (-torch.arange(self.half) / self.half)
        x = F.embedding(tokens, self.embedding)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        x = F.rms_norm(x, x.shape[-1:], self.norm, EPS)
        return F.linear(x, self.embedding)


def batch_of(cell, leaf):
    each = cell["sequences"] // cell["leaves"]
    s = torch.arange(leaf * each, (leaf + 1) * each)[:, None]
    t = torch.arange(cell["tokens"] + 1)[None, :]
    return ((s * 7919 + t * 104729 + t * t * 31) % cell["shape"]["vocab"],
            torch.where(s % 2 == 0, 1.0, -0.5))


class Rank:
    def __init__(self, cell, rank):
        torch.set_num_threads(cell["threads"])
        self.cell, self.ranks = cell, cell["ranks"]
        self.module = self.model = Model(cell["shape"], cell["weights"])
        if self.ranks > 1:
            self.model = nn.parallel.DistributedDataParallel(self.module)
        matrices = [p for p in self.module.parameters()]
        self.optimizer = torch.optim.AdamW(matrices, lr=1e-6, weight_decay=0.0, fused=True)
        own = cell["leaves"] // self.ranks
        self.batches = [batch_of(cell, leaf) for leaf in range(rank * own, (rank + 1) * own)]

    def loss(self, tokens, advantage):
        """GRPO's clipped loss of a leaf, as a mean over the tokens of the step."""
        logits = self.model(tokens[:, :-1])
        logprob = -F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(),
                                   reduction="none").view(len(tokens), -1)
        ratio = torch.exp(logprob + math.log(self.cell["shape"]["vocab"]))
        each = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        return each.sum() / (self.cell["sequences"] * self.cell["tokens"])

    def step(self):
        if self.ranks > 1:
            dist.barrier()
        start, cpu, total = time.perf_counter(), processor_seconds(), 0.0
        self.optimizer.zero_grad(set_to_none=self.ranks == 1)
        for i, (tokens, advantage) in enumerate(self.batches):
            last = i + 1 == len(self.batches)
            apart = contextlib.nullcontext() if last or self.ranks == 1 else self.model.no_sync()
            with apart:  # DDP takes the mean over ranks, the loss is a sum
                loss = self.loss(tokens, advantage)
                (loss * self.ranks).backward()
            total += loss.item()
        gradient_s, gradient_cpu_s = time.perf_counter() - start, processor_seconds() - cpu
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        return {"gradient_s": gradient_s, "step_s": time.perf_counter() - start,
                "gradient_cpu_s": gradient_cpu_s, "step_cpu_s": processor_seconds() - cpu,
                "loss": total, "norm": norm.item(), "peak_mib": peak_mib()}


def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def joined(reports):
    add = ("gradient_cpu_s", "step_cpu_s", "loss")
    return {key: sum(r[key] for r in reports) if key in add else max(r[key] for r in reports)
            for key in reports[0]}


def start_others(cell):
    """The other ranks, which meet in a file; where there is one rank, nothing."""
    if cell["ranks"] == 1:
        return []
    store = tempfile.mktemp(prefix="torch_step-")
    others = [subprocess.Popen([sys.executable, "-B", __file__, json.dumps(cell), str(rank), store],
                               stdin=subprocess.DEVNULL) for rank in range(1, cell["ranks"])]
    join(cell, 0, store)
    return others


def join(cell, rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank,
                            world_size=cell["ranks"])


def asked(rank, ranks):
    more = torch.tensor([1 if rank == 0 and sys.stdin.readline() else 0])
    if ranks > 1:
        dist.broadcast(more, 0)
    return bool(more)


def main():
    cell, rank = json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    answers, sys.stdout = sys.stdout, sys.stderr
    others = start_others(cell) if rank == 0 else join(cell, rank, sys.argv[3])
    mine = Rank(cell, rank)
    if rank == 0:
        print(json.dumps({"torch": torch.__version__, "mkl": torch.backends.mkl.is_available(),
                          "capability": torch.backends.cpu.get_cpu_capability(),
                          "parameters": sum(p.numel() for p in mine.module.parameters())}),
              file=answers, flush=True)
    while asked(rank, cell["ranks"]):
        report = mine.step()
        reports = [report]
        if cell["ranks"] > 1:
            reports = [None] * cell["ranks"]
            dist.all_gather_object(reports, report)
        if rank == 0:
            print(json.dumps(joined(reports)), file=answers, flush=True)
    if cell["ranks"] > 1:
        dist.destroy_process_group()
    for other in others or []:
        other.wait()


if __name__ == "__main__":
    main()
