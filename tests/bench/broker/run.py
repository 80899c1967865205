"""Order of measurements, and the report. README.md tells what each figure means."""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import systems

TOKENS, ACTORS = (128, 1024, 8192, 32768), (1, 4, 16, 64)
AIMS = {
    "per_second": "100,000 trajectories/s of 1,024 tokens",
    "raw": "90 % of raw ZeroMQ per hop at 1,024 tokens and up",
    "durable": "80 % of the smaller of the non-durable rate and sequential 1 MiB append + fdatasync",
    "redis everysec": "1.5 times Redis Streams with AOF everysec",
    "redis always": "3 times Redis Streams with AOF always",
    "flat": "cost per trajectory within 20 % from 10^4 trajectories on and up to 10,000 actors",
}


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="1,024 tokens, 4 actors, a round of a few seconds")
    parser.add_argument("--parts", default="broker,raw,redis,disk,simulated,connections")
    parser.add_argument("--tokens", type=lambda t: tuple(map(int, t.split(","))))
    parser.add_argument("--actors", type=lambda t: tuple(map(int, t.split(","))))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    chosen = parser.parse_args()
    quick = chosen.quick
    chosen.tokens = chosen.tokens or ((1024,) if quick else TOKENS)
    chosen.actors = chosen.actors or ((4,) if quick else ACTORS)
    chosen.rounds = chosen.rounds or (1 if quick else 3)
    chosen.seconds = chosen.seconds or (3 if quick else 5)
    chosen.parts = chosen.parts.split(",")
    return chosen


def say(text):
    print(text, file=sys.stderr, flush=True)


def line(name, figures):
    if "skipped" in figures:
        return f"  {name:<34} skipped: {figures['skipped']}"
    text = f"  {name:<34} {figures['per_second']:>10,.0f}/s {figures['bytes_per_second'] / 1e6:>8,.0f} MB/s"
    if "cpu_us" in figures:
        text += f" {figures['cpu_us']:>7.1f} us CPU each {figures['cpu_s_per_gb']:>6.2f} s/GB"
    if "latency_us" in figures:
        latency = figures["latency_us"]
        text += "  upload " + "/".join(f"{latency[q] / 1000:.1f}" for q in ("p50", "p99", "p99.9") if q in latency) + " ms"
    if "memory_mib" in figures:
        text += f"  {figures['memory_mib']:.0f} MiB"
    return text + f"  load {figures['load']:.1f}"


def cells(chosen, scratch):
    """One system after another in each round, so that neighbours in time are compared."""
    measured = []
    for tokens in chosen.tokens:
        for actors in chosen.actors:
            say(f"{tokens} tokens, {actors} actors")
            for number in range(chosen.rounds):
                for name, measure in systems.of(chosen, tokens, actors, scratch):
                    before = os.getloadavg()[0]
                    figures = measure()
                    figures["load"] = before
                    say(line(name, figures))
                    measured.append({"tokens": tokens, "actors": actors, "round": number, "system": name, **figures})
    return measured


# What is held against what: the same transport, the same promise.
PAIRS = {
    ("thresher ipc async", "raw zeromq ipc"), ("thresher tcp+curve async", "raw zeromq tcp+curve"),
    ("thresher ipc async", "redis streams everysec"), ("thresher ipc durable", "redis streams always"),
    ("thresher ipc durable", "1 MiB append + fdatasync"), ("thresher ipc durable", "thresher ipc async"),
    ("thresher ipc durable zstd", "thresher ipc durable"),
}


def ratios(measured):
    """Ours to each peer, by pairs of the same round: median, least, greatest. `cpu`: theirs to ours."""
    found = {}
    for ours in measured:
        for peer in measured:
            # Redis and the disk are measured once for all numbers of actors.
            keys = ("tokens", "round") if peer["system"].startswith(("redis", "1 MiB")) else ("tokens", "actors", "round")
            same = all(peer[key] == ours[key] for key in keys)
            if not same or (ours["system"], peer["system"]) not in PAIRS or "skipped" in peer:
                continue
            pair = (ours["system"], peer["system"], ours["tokens"], ours["actors"])
            rate = ours["bytes_per_second"] / peer["bytes_per_second"]
            cpu = peer["cpu_us"] / ours["cpu_us"] if "cpu_us" in peer and "cpu_us" in ours else None
            found.setdefault(pair, []).append((rate, cpu))
    rows = []
    for (ours, peer, tokens, actors), values in sorted(found.items()):
        row = {"ours": ours, "peer": peer, "tokens": tokens, "actors": actors}
        for key, numbers in (("bytes_per_second", [v[0] for v in values]), ("cpu", [v[1] for v in values])):
            if None not in numbers:
                row[key] = {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers)}
        rows.append(row)
    return rows


def main():
    chosen = options()
    scratch = Path(tempfile.mkdtemp(prefix="thresher-broker-bench-"))
    report = {"load_at_begin": os.getloadavg(), "cpus": os.cpu_count(), "aims": AIMS,
              "seconds": chosen.seconds, "rounds": chosen.rounds}
    try:
        report["cells"] = cells(chosen, scratch)
        report["ratios"] = ratios(report["cells"])
        for row in report["ratios"]:
            spread = row["bytes_per_second"]
            cpu = f", CPU {row['cpu']['median']:.2f}" if "cpu" in row else ""
            say(f"  {row['ours']} / {row['peer']}, {row['tokens']} tokens, {row['actors']} actors: "
                f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f}){cpu}")
        if "simulated" in chosen.parts:
            report["simulated"] = systems.simulated(chosen, scratch, say)
        if "connections" in chosen.parts:
            report["connections"] = systems.connections(chosen, scratch, say)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = json.dumps(report, indent=1)
    if chosen.out:
        chosen.out.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    main()
