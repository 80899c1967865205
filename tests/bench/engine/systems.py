"""The systems under test: the `thresher` program, and peers as processes that answer requests."""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def on_cores(threads):
    """Every system may use the first `threads` processors of this process, and no others."""
    allowed = set(sorted(os.sched_getaffinity(0))[:threads])
    return lambda: os.sched_setaffinity(0, allowed)


class Ours:
    """A run of the program for each measurement: it loads, runs once uncounted, then once more."""

    def __init__(self, program, folder, arguments, threads):
        self.command = [program, "bench", "engine", folder, "--threads", str(threads),
                        "--rounds", "1", *arguments]
        self.threads = threads
        self.version = subprocess.run([program, "--version"], capture_output=True, text=True,
                                      check=True).stdout.strip()

    def measure(self, batch, prompt, new):
        command = [*self.command, "--batch", str(batch), "--prompt-tokens", str(prompt),
                   "--new-tokens", str(new)]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              preexec_fn=on_cores(self.threads))
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
        row = json.loads(done.stdout)["rows"][0]
        figures = {name: row[name]["median"]
                   for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "first_token_s")}
        return {**figures, "peak_mib": row["peak_mib"]}

    def close(self):
        pass


class Peer:
    """A process of peer.py, kept from one measurement to the next."""

    def __init__(self, kind, path, dtype, threads):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-B", HERE / "peer.py", kind, path, dtype, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            preexec_fn=on_cores(threads))
        self.version = self.answer()["version"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a peer ended with exit code {self.process.wait()}")
        return json.loads(line)

    def measure(self, batch, prompt, new):
        print(json.dumps({"batch": batch, "prompt": prompt, "new": new}),
              file=self.process.stdin, flush=True)
        found = self.answer()
        return {"prefill_tokens_per_s": batch * prompt / found["prefill_s"],
                "decode_tokens_per_s": batch * (new - 1) / found["decode_s"],
                "first_token_s": found["first_token_s"], "peak_mib": found["peak_mib"],
                "first_tokens": found["first_tokens"]}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# Ours with bf16 products, each measured where its instruction exists.
KERNEL_SETS = {"ours bf16dot": "cpu-bf16dot-v1", "ours bf16amx": "cpu-bf16amx-v1"}


def all_systems(program, folder, threads, limits):
    """(name, function that starts it), in the order in which a round measures them."""
    systems = [
        ("ours f32", lambda: Ours(program, folder / "f32", [], threads)),
        ("transformers f32", lambda: Peer("transformers", folder / "f32", "float32", threads)),
        ("llama.cpp F32", lambda: Peer("llama.cpp", folder / "F32.gguf", "-", threads)),
        ("ours bf16", lambda: Ours(program, folder / "bf16", [], threads)),
        ("transformers bf16", lambda: Peer("transformers", folder / "bf16", "bfloat16", threads)),
        ("llama.cpp F16", lambda: Peer("llama.cpp", folder / "F16.gguf", "-", threads)),
        ("llama.cpp BF16", lambda: Peer("llama.cpp", folder / "BF16.gguf", "-", threads)),
    ]
    for name, kernel_set in KERNEL_SETS.items():
        if kernel_set in limits:
            systems.append((name, lambda kernel_set=kernel_set: Ours(
                program, folder / "bf16", ["--kernel-set", kernel_set], threads)))
    return systems


# Which of ours is compared with which peer.
PAIRS = [("ours f32", "transformers f32"), ("ours f32", "llama.cpp F32"),
         ("ours bf16", "transformers f32"), ("ours bf16", "transformers bf16"),
         ("ours bf16", "llama.cpp F16"), ("ours bf16", "llama.cpp BF16"),
         *((ours, peer) for ours in KERNEL_SETS
           for peer in ("transformers f32", "transformers bf16", "llama.cpp BF16"))]
