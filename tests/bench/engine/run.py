"""The engine against its peers, and the price of strictness; see README.md. Started by `run`."""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import aims
import models
import report
import systems

FLOP_OF_A_CELL = 1e12  # of one system in one round; longer ones get shorter sequences
LIBRARY_ROWS = (1, 2, 4, 8, 16, 32, 64, 512)
LAYERS_OF_STRICTNESS = 4  # of a model that would not fit the memory thrice


def arguments():
    parser = argparse.ArgumentParser(prog="run", description="See README.md.")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true",
                        help="models 1M and 30M, batches 1 and 32, short sequences, 2 rounds")
    parser.add_argument("--models", default=None, help="1M,30M,125M,0.5B")
    parser.add_argument("--batches", default=None, help="1,8,32,64")
    parser.add_argument("--threads", default=None, help="1,2")
    parser.add_argument("--rounds", type=int, default=None, help="5; for 125M and 0.5B 3")
    parser.add_argument("--prompt", type=int, default=None, help="tokens of a prompt: 128")
    parser.add_argument("--new", type=int, default=None, help="new tokens: 64")
    parser.add_argument("--systems", default="", help="only those whose name holds one of these")
    parser.add_argument("--parts", default="cells,strictness")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="the JSON; default: in BUILD")
    options = parser.parse_args()
    quick = options.quick
    split = lambda text, default: (text or default).split(",")
    options.models = split(options.models, "1M,30M" if quick else "1M,30M,125M,0.5B")
    options.batches = [int(b) for b in split(options.batches, "1,32" if quick else "1,8,32,64")]
    options.threads = [int(t) for t in split(options.threads, "1" if quick else "1,2")]
    options.prompt = options.prompt or (32 if quick else 128)
    options.new = options.new or (8 if quick else 64)
    options.out = options.out or options.build / "bench-engine" / "results.json"
    unknown = [name for name in options.models if name not in models.SHAPES]
    if unknown:
        parser.error(f"--models: {unknown[0]}; allowed: {', '.join(models.SHAPES)}")
    return options


class Bench:
    def __init__(self, options):
        self.options = options
        self.program = options.build / "launch" / "thresher-cli"
        self.tool = options.build / "tests" / "bench" / "engine" / "engine_tool"
        self.result = {"date": time.strftime("%Y-%m-%d %H:%M"), "cpu": cpu_name(),
                       "cores": os.cpu_count(), "kernel": platform.release(), "versions": {},
                       "limits": {}, "cells": [], "strictness": []}

    def ask(self, what, request, cores=1):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run([self.tool, what, json.dumps(request)], capture_output=True,
                              text=True, check=True, env=environment,
                              preexec_fn=systems.on_cores(cores))
        return json.loads(done.stdout)

    def save(self):
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        self.options.out.write_text(json.dumps(self.result, indent=1) + "\n")

    def measure_limits(self, threads):
        """The best seen so far: a busy machine can only lower them."""
        found = self.ask("limits", {"threads": [threads]}, threads)
        best = self.result["limits"].setdefault(str(threads), {})
        for name, value in found["limits"][str(threads)].items():
            best[name] = max(value, best.get(name, 0))
        return best

    def lengths(self, shape, batch):
        """Prompt and new tokens, halved until a cell is no more work than FLOP_OF_A_CELL."""
        prompt, new = self.options.prompt, self.options.new
        while batch * (shape.prefill_flop(prompt) + new * shape.flop_per_token) > FLOP_OF_A_CELL:
            if prompt <= 8:
                break
            prompt, new = prompt // 2, max(4, new // 2)
        return prompt, new

    def rounds(self, shape):
        if self.options.rounds:
            return self.options.rounds
        return 2 if self.options.quick else 5 if shape.flop_per_token < 1e8 else 3

    def run_cells(self, shape, threads):
        folder = models.make(shape, self.options.build / "bench-engine" / "models")
        limits = self.measure_limits(threads)
        wanted = [w for w in self.options.systems.split(",") if w]
        started = {}
        try:
            for name, start in systems.all_systems(self.program, folder, threads, limits):
                if not wanted or any(w in name for w in wanted):
                    started[name] = start()
                    self.result["versions"][name] = started[name].version
            for batch in self.options.batches:
                self.run_cell(shape, threads, batch, started)
        finally:
            for system in started.values():
                system.close()

    def run_cell(self, shape, threads, batch, started):
        prompt, new = self.lengths(shape, batch)
        rounds = {name: [] for name in started}
        for _ in range(self.rounds(shape)):
            for name, system in started.items():
                rounds[name].append(system.measure(batch, prompt, new))
        cell = {"model": shape.name, "batch": batch, "threads": threads, "prompt": prompt,
                "new": new, "rounds": self.rounds(shape), "load": os.getloadavg()[0],
                "limits": dict(self.measure_limits(threads))}
        cell["systems"] = {name: self.describe(shape, cell, name, seen)
                           for name, seen in rounds.items()}
        cell["ratios"] = {f"{ours} / {peer}": ratios(rounds[ours], rounds[peer])
                          for ours, peer in systems.PAIRS if ours in rounds and peer in rounds}
        check_peers_agree(rounds)
        cell["aims"] = aims.judge(cell, large=shape.name != "1M")
        self.result["cells"].append(cell)
        self.save()
        print(report.cell_text(cell) + "\n", flush=True)

    def describe(self, shape, cell, name, seen):
        """Figures of one system in one cell, and what fractions of the limits they are."""
        out = {figure: {**report.spread([s[figure] for s in seen]),
                        "rounds": [s[figure] for s in seen]} for figure in report.FIGURES}
        prefill, decode = (out[figure]["median"] for figure in report.FIGURES[:2])
        gbytes = cell["limits"]["read_gbytes_per_s"]
        gflops = cell["limits"][systems.KERNEL_SETS.get(name, "cpu-fp32-v1")]
        bytes_each = 2 if "16" in name else 4
        out["prefill_arithmetic_fraction"] = (
            prefill / cell["prompt"] * shape.prefill_flop(cell["prompt"]) / 1e9 / gflops)
        out["decode_arithmetic_fraction"] = decode * shape.flop_per_token / 1e9 / gflops
        out["decode_bandwidth_fraction"] = (
            decode / cell["batch"] * shape.flop_per_token / 2 * bytes_each / 1e9 / gbytes)
        if name in ("ours f32", "ours bf16") and cell["threads"] == 1:
            kernels = self.kernels(shape, cell, name.split()[1])
            out["kernels_alone_s"] = kernels
            out["step_over_kernels"] = cell["batch"] / decode / kernels["sum"]
        return out

    def kernels(self, shape, cell, weight_type):
        return self.ask("kernels", {
            "width": shape.width, "layers": shape.layers, "heads": shape.heads,
            "kv_heads": shape.kv_heads, "head_dim": shape.head_dim, "ffn_width": shape.ffn_width,
            "vocab": shape.vocab, "weight_type": weight_type, "batch": cell["batch"],
            "positions": cell["prompt"] + cell["new"] // 2})

    def run_strictness(self):
        import torch
        library = next(pathlib.Path(torch.__path__[0], "lib").glob("libtorch_cpu.*"))
        for name in self.options.models:
            shape = models.SHAPES[name]
            layers = min(shape.layers, LAYERS_OF_STRICTNESS) if name == "0.5B" else shape.layers
            for rows in (1, 8, 64) if self.options.quick else LIBRARY_ROWS:
                products = [[n, k, layers] for n, k, _ in shape.products[:-1]]
                if rows <= 64:  # a prefill's head has one row
                    products.append(shape.products[-1])
                found = self.ask("strictness", {
                    "library": str(library), "products": products, "rows": rows,
                    "pairs": 7 if self.options.quick else 21 if name != "0.5B" else 11})
                self.result["strictness"].append(price(name, rows, found["seconds"]))
                self.save()
        print(report.strictness_text(self.result["strictness"]), flush=True)

    def run(self):
        if "cells" in self.options.parts:
            for threads in self.options.threads:
                for name in self.options.models:
                    self.run_cells(models.SHAPES[name], threads)
        if "strictness" in self.options.parts:
            self.run_strictness()
        self.summarise()
        self.save()

    def summarise(self):
        checks = [(f"{c['model']} batch {c['batch']} {c['threads']} core(s)", check)
                  for c in self.result["cells"] for check in c["aims"]]
        missed = [f"  {where}: {name}: {value:.2f}, aim {aim:g}"
                  for where, (name, value, aim, reached) in checks if not reached]
        print(f"\n{len(checks) - len(missed)} of {len(checks)} aims reached"
              + (":" if missed else "") + "\n" + "\n".join(missed))
        limits = "; ".join(f"{t} core(s): {l['cpu-fp32-v1']:.0f} fp32 GFLOP/s, "
                           f"{l['read_gbytes_per_s']:.1f} GB/s read"
                           for t, l in self.result["limits"].items())
        print(f"{self.result['cpu']}, load now {os.getloadavg()[0]:.1f}\nlimits: {limits}\n"
              f"JSON: {self.options.out}")


def cpu_name():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file
                     if line.startswith("model name")), "unknown")


def ratios(ours, peer):
    """Rate by rate, round by round."""
    return {figure: report.spread([a[figure] / b[figure] for a, b in zip(ours, peer)])
            for figure in report.FIGURES[:2]}


def check_peers_agree(rounds):
    """Same weights and prompts: but for near ties, the same likeliest tokens."""
    a, b = (rounds.get(name, [{}])[0].get("first_tokens")
            for name in ("transformers f32", "llama.cpp F32"))
    if a and b and sum(x != y for x, y in zip(a, b)) > max(1, len(a) // 10):
        raise RuntimeError(f"Transformers and llama.cpp disagree: {a}, {b}")


def price(model, rows, seconds):
    strict = seconds.pop("strict")
    fastest = min(seconds, key=lambda name: report.spread(seconds[name])["median"])
    ratio = report.interval([a / b for a, b in zip(strict, seconds[fastest])])
    return {"model": model, "rows": rows, "fastest": fastest, "ratio": ratio,
            "strict_s": report.spread(strict)["median"],
            "library_s": report.spread(seconds[fastest])["median"],
            "all": {"strict": strict, **seconds}, "reached": ratio["median"] <= 1.05}


if __name__ == "__main__":
    try:
        Bench(arguments()).run()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"run: {error}\n{getattr(error, 'stderr', '') or ''}", file=sys.stderr)
        sys.exit(1)
