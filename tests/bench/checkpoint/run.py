"""How long checkpoints hold up training, beside a copy of the same bytes and the time they take to write."""
import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WAYS = {"double buffer": ["checkpoint.double_buffer=true"],
        "copy": ["checkpoint.double_buffer=false"],
        "in place": ["checkpoint.background=false"]}
WIDTH, LAYERS, MOMENTS = 768, 12, 2


def config(millions, every, checkpoints):
    """Supervised steps alone, of few tokens: a step is short beside the state that it moves."""
    per_layer = millions * 1e6 / LAYERS
    ffn = max(64, int((per_layer - 2.5 * WIDTH * WIDTH) / (3 * WIDTH) / 16) * 16)
    return f"""
run: {{name: checkpoints}}
task: {{name: countdown, numbers: 2, max_number: 9, max_target: 50}}
model: {{layers: {LAYERS}, width: {WIDTH}, heads: 12, kv_heads: 3, head_dim: 64, ffn_width: {ffn}, context: 64}}
supervised: {{steps: {every * checkpoints + 1}, batch: 4, learning_rate: 1.0e-4, warmup_steps: 1}}
rl: {{steps: 0}}
sampling: {{max_new_tokens: 8}}
eval: {{items: 1, samples: 1}}
checkpoint: {{every: {every}, keep: 1}}
actors: {{count: 1}}
learner: {{threads: {len(os.sched_getaffinity(0))}, grad_leaves: 2}}
"""


def copy_seconds(size, threads):
    """Median time in which `threads` copy `size` bytes between buffers that were written before."""
    memmove = ctypes.CDLL(None).memmove
    memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    memmove.restype = ctypes.c_void_p
    source, target = ((ctypes.c_char * size)() for _ in range(2))
    begin = [ctypes.addressof(buffer) for buffer in (source, target)]
    ctypes.memset(begin[0], 1, size)
    ctypes.memset(begin[1], 2, size)
    part = size // threads
    times = []
    for _ in range(5):
        workers = [threading.Thread(target=memmove, args=(begin[1] + i * part, begin[0] + i * part, part))
                   for i in range(threads)]
        start = time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        times.append(time.monotonic() - start)
    return statistics.median(times)


def train(build, folder, arguments, way):
    """Milliseconds of each checkpoint but the first and the last: held up, and taken to write."""
    run = folder / "run"
    command = [build / "launch/thresher-cli", "run", folder / "config.yaml", "--dir", run]
    for text in WAYS[way]:
        command += ["--set", text]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{way}: exit {done.returncode}\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["learner"] for line in lines if "step" in line]
    shutil.rmtree(run)
    # What a checkpoint costs is in the lines of the steps after it, until the next begins.
    every = arguments.every
    spans = [steps[k * every:(k + 1) * every] for k in range(2, arguments.checkpoints)]
    return {"held_ms": [sum(step["checkpoint_stall_ms"] for step in span) for span in spans],
            "write_ms": [sum(step["checkpoint_write_ms"] for step in span) for span in spans]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--millions", type=float, default=125, help="parameters")
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints; they should take longer than to write one")
    parser.add_argument("--checkpoints", type=int, default=4, help="in each run, the first and the last not counted")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.checkpoints < 3 or arguments.every < 1 or arguments.rounds < 1:
        parser.error("--checkpoints: at least 3, for the first and the last are not counted; --every and --rounds: at least 1")
    report = {"parameters": arguments.millions * 1e6, "rounds": []}
    folder = Path(tempfile.mkdtemp(prefix="thresher-checkpoint-bench-"))
    try:
        (folder / "config.yaml").write_text(config(arguments.millions, arguments.every, arguments.checkpoints))
        size = int(arguments.millions * 1e6) * 4 * (1 + MOMENTS)
        for _ in range(arguments.rounds):
            copied = 1e3 * copy_seconds(size, len(os.sched_getaffinity(0)))
            print(f"copy of {size / 1e9:.2f} GB: {copied:.0f} ms")
            entry = {"copy_ms": copied}
            for way in WAYS:
                entry[way] = train(arguments.build, folder, arguments, way)
                held, wrote = entry[way]["held_ms"], entry[way]["write_ms"]
                worst = max(held)
                print(f"{way:14} held up {statistics.median(held):8.1f} ms (at most {worst:.1f}), written in {statistics.median(wrote):.0f} ms: "
                      f"{statistics.median(held) / copied:.3f} copies, {statistics.median(held) / statistics.median(wrote):.4f} of the writing")
            report["rounds"].append(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
