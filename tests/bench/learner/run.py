"""A step of the learner against the same step in PyTorch; see README.md. Started by `run`."""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Shape:
    """Letters as in kernels/cpu; the head shares the embedding's weights. A step's batch beside it."""

    vocab: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn_width: int
    tokens: int
    sequences: int
    aim: float  # tokens/s ours / PyTorch

    @property
    def model(self):
        fields = ("vocab", "layers", "width", "heads", "kv_heads", "ffn_width")
        return {name: getattr(self, name) for name in fields}

    @property
    def rows(self):
        return self.tokens * self.sequences

    @property
    def product_weights(self):
        """Of all matrices that a token is multiplied with, the head's among them."""
        d, f = self.width, self.ffn_width
        kv = self.kv_heads * (d // self.heads)
        return self.layers * (d * (d + 2 * kv) + d * d + 3 * d * f) + self.vocab * d

    @property
    def flop(self):
        """Of a step's products: forward, gradient of inputs, gradient of weights."""
        return 6 * self.rows * self.product_weights


SHAPES = {
    "1M": Shape(256, 4, 128, 4, 2, 512, 64, 128, 2.0),
    "30M": Shape(8192, 8, 512, 8, 2, 1536, 128, 32, 1.0),
    "125M": Shape(50304, 12, 768, 12, 4, 2432, 128, 8, 1.0),
}
LEAVES = 2


def arguments():
    parser = argparse.ArgumentParser(prog="run", description="See README.md.")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--models", default="1M,30M,125M")
    parser.add_argument("--ranks", default="1,2", help="each with one core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, help="rows of a sequence")
    parser.add_argument("--sequences", type=int, help="of a step, on all ranks")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON; default: in BUILD")
    options = parser.parse_args()
    options.models = options.models.split(",")
    options.ranks = [int(r) for r in options.ranks.split(",")]
    options.folder = options.build / "bench-learner"
    options.out = options.out or options.folder / "results.json"
    for name in options.models:
        if name not in SHAPES:
            parser.error(f"--models: {name}; allowed: {', '.join(SHAPES)}")
    for ranks in options.ranks:
        if ranks not in (1, 2):
            parser.error(f"--ranks: {ranks}; allowed: 1, 2")
        if ranks > len(os.sched_getaffinity(0)):
            parser.error(f"--ranks: {ranks} ranks, but this process has "
                         f"{len(os.sched_getaffinity(0))} processors")
    return options


class Peer:
    """A process that does a step for each line."""

    def __init__(self, command, ranks):
        allowed = set(sorted(os.sched_getaffinity(0))[:ranks])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                       "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, allowed))
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a system ended with exit code {self.process.wait()}")
        return json.loads(line)

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        """What it says last, if anything."""
        self.process.stdin.close()
        last = self.process.stdout.read()
        self.process.wait()
        return json.loads(last) if last else {}


def our_command(options, shape, ranks, weights):
    tool = options.build / "tests" / "bench" / "learner" / "learner_tool"
    command = [tool, "--weights", weights, "--leaves", LEAVES, "--tokens", shape.tokens,
               "--sequences", shape.sequences]
    for name, value in shape.model.items():
        command += ["--" + name.replace("_", "-"), value]
    if ranks > 1:
        if shutil.which("mpirun") is None:
            raise RuntimeError("mpirun is missing: apt-get install openmpi-bin")
        command = ["mpirun", "-n", ranks, "--bind-to", "none", "--oversubscribe", *command, "--mpi"]
    return command


def torch_command(shape, ranks, weights):
    cell = {"shape": shape.model, "tokens": shape.tokens, "sequences": shape.sequences,
            "leaves": LEAVES, "threads": 1, "ranks": ranks, "weights": str(weights)}
    return [sys.executable, "-B", HERE / "torch_step.py", json.dumps(cell)]


def check_same(ours, theirs):
    """The first step has the same loss and the same norm of the gradient."""
    for key in ("loss", "norm"):
        a, b = ours[key], theirs[key]
        if abs(a - b) > 1e-3 * max(abs(a), abs(b)):
            raise RuntimeError(f"not the same step: {key} is {a} here and {b} in PyTorch")


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def describe(shape, rounds):
    """Figures of a cell. A round is (ours, PyTorch's); the limit is ours, taken just before."""
    out = {"load": os.getloadavg()[0], "rounds": rounds}
    for what in ("gradient", "step"):
        for clock in ("s", "cpu_s"):
            key = f"{what}_{clock}"
            out[f"ratio_{key}"] = spread([b[key] / a[key] for a, b in rounds])
            out[f"ours_{key}"] = spread([a[key] for a, _ in rounds])
            out[f"torch_{key}"] = spread([b[key] for _, b in rounds])
        # The limit is of processor time: gflops are of all ranks together.
        limit = statistics.median(a["gflops"] for a, _ in rounds)
        ranks_s = [a[f"{what}_cpu_s"] for a, _ in rounds]
        out[f"{what}_of_limit"] = spread(
            [shape.flop / 1e9 / (limit / out_ranks(rounds)) / s for s in ranks_s])
        out[f"torch_{what}_of_limit"] = spread(
            [shape.flop / 1e9 / (limit / out_ranks(rounds)) / b[f"{what}_cpu_s"]
             for _, b in rounds])
    out["gflops"] = spread([a["gflops"] for a, _ in rounds])
    out["peak_mib"] = {"ours": rounds[-1][0]["peak_mib"], "torch": rounds[-1][1]["peak_mib"]}
    return out


def out_ranks(rounds):
    return rounds[0][0]["ranks"]


def run_cell(options, name, ranks):
    shape = SHAPES[name]
    changed = {k: getattr(options, k) for k in ("tokens", "sequences") if getattr(options, k)}
    shape = dataclasses.replace(shape, **changed)
    weights = options.folder / f"{name}.weights"
    weights.parent.mkdir(parents=True, exist_ok=True)
    if not weights.exists():
        subprocess.run([str(w) for w in our_command(options, shape, 1, weights)] + ["--make"],
                       check=True)
    systems = []
    try:
        systems.append(Peer(our_command(options, shape, ranks, weights), ranks))
        systems.append(Peer(torch_command(shape, ranks, weights), ranks))
        check_same(*(s.step() for s in systems))  # and takes the memory
        rounds = []
        for _ in range(options.rounds):
            pair = [s.step() for s in systems]
            pair[0]["ranks"] = ranks
            rounds.append(pair)
        about = [s.about for s in systems]
    finally:
        last = [system.close() for system in systems]
    cell = {"model": name, "ranks": ranks, "rows": shape.rows, "about": about, **last[0],
            **describe(shape, rounds)}
    print(cell_text(shape, cell), flush=True)
    return cell


def cell_text(shape, cell):
    def figures(s):
        return f"{s['median']:.2f} ({s['min']:.2f} to {s['max']:.2f})"
    rate = {who: shape.rows / cell[f"{who}_gradient_s"]["median"] for who in ("ours", "torch")}
    whole = {who: shape.rows / cell[f"{who}_step_s"]["median"] for who in ("ours", "torch")}
    return (f"{cell['model']}, {cell['ranks']} rank(s), {cell['rows']} rows a step, load "
            f"{cell['load']:.1f}\n"
            f"  forward and backward: {rate['ours']:,.0f} tokens/s, PyTorch {rate['torch']:,.0f}; "
            f"ratio {figures(cell['ratio_gradient_s'])} wall, "
            f"{figures(cell['ratio_gradient_cpu_s'])} processor; aim {shape.aim:g}\n"
            f"  whole step: {whole['ours']:,.0f} tokens/s, PyTorch {whole['torch']:,.0f}; "
            f"ratio {figures(cell['ratio_step_s'])} wall, "
            f"{figures(cell['ratio_step_cpu_s'])} processor\n"
            f"  of the arithmetic limit ({cell['gflops']['median']:.0f} GFLOP/s), by processor "
            f"time: {figures(cell['gradient_of_limit'])}, PyTorch "
            f"{figures(cell['torch_gradient_of_limit'])}\n"
            f"  peak MiB of a rank: {cell['peak_mib']['ours']:.0f}, PyTorch "
            f"{cell['peak_mib']['torch']:.0f}")


def main():
    options = arguments()
    result = {"date": time.strftime("%Y-%m-%d %H:%M"), "cores": os.cpu_count(), "cells": []}
    for name in options.models:
        for ranks in options.ranks:
            cell = run_cell(options, name, ranks)
            for other in result["cells"]:  # as many steps of the same leaves
                if other["model"] == name and other["weights_hash"] != cell["weights_hash"]:
                    raise RuntimeError(f"{name}: the weights depend on the number of ranks")
            result["cells"].append(cell)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"JSON: {options.out}")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"run: {error}", file=sys.stderr)
        sys.exit(1)
