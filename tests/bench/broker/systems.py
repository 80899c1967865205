"""The systems under test: each is started afresh, loaded, and looked at from outside."""
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

UPLOAD_RECORDS, UPLOAD_BYTES = 64, 512 << 10  # as an actor's
FRAME_EXTRA = 1200  # header, envelope and fences of an upload of 64 records
WINDOW = 4  # uploads of one actor on their way
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid):
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("VmHWM"):
            return int(text.split()[1]) / 1024
    return 0.0


def record_bytes(tokens):
    return 8 * tokens + 700


def upload_records(tokens):
    return max(1, min(UPLOAD_RECORDS, UPLOAD_BYTES // record_bytes(tokens)))


def batch(tokens):
    """A batch of 32 MiB: three of them, as many as are on their way, have room in half of the default budget."""
    return max(64, min(4096, (32 << 20) // record_bytes(tokens)))


def run_load(command, server_pid, env=None):
    """Runs a load until its end; its report, and what the server took from "begin" on."""
    load = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True, env=env)
    try:
        begin = load.stdout.readline()
        if begin.strip() != "begin":
            raise RuntimeError(f"{command[0]} said {begin!r}")
        before = cpu_seconds(server_pid)
        text = load.stdout.readline()
        cpu = cpu_seconds(server_pid) - before
        load.wait(30)
        return json.loads(text), cpu
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()


def figures(count, seconds, size, cpu, pid, latency):
    return {"per_second": count / seconds, "bytes_per_second": count * size / seconds, "record_bytes": size,
            "cpu_us": 1e6 * cpu / max(1, count), "cpu_s_per_gb": 1e9 * cpu / max(1, count * size),
            "memory_mib": peak_mib(pid), "latency_us": latency}


class Broker:
    def __init__(self, chosen, scratch, overrides, listen=()):
        self.run = Path(scratch) / f"run{time.monotonic_ns()}"
        self.build = chosen.build
        subprocess.run([self.tool("broker_load"), "init", self.run, *overrides], check=True)
        command = [chosen.build / "broker" / "thresher-broker", "--run", self.run, "--http", "none"]
        for endpoint in listen:
            command += ["--listen", endpoint]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (self.run / "rendezvous.json").exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the broker did not start")
            time.sleep(0.02)

    def tool(self, name):
        return self.build / "tests" / "bench" / "broker" / name

    def load(self, tokens, actors, seconds, tcp=False, outstanding=None):
        records = upload_records(tokens)
        words = [self.tool("broker_load"), "peers", self.run, tokens, actors, outstanding or WINDOW * records, seconds]
        if tcp:
            endpoints = json.loads((self.run / "rendezvous.json").read_text())["endpoints"]
            words.append(next(e for e in endpoints if e.startswith("tcp")))
        return run_load(words, self.process.pid)

    def end(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.run, ignore_errors=True)


def thresher(chosen, tokens, actors, scratch, overrides, tcp=False):
    broker = Broker(chosen, scratch, overrides, ["tcp://127.0.0.1:0"] if tcp else [])
    try:
        report, cpu = broker.load(tokens, actors, chosen.seconds, tcp)
        found = figures(report["trajectories"], report["seconds"], report["record_bytes"], cpu, broker.process.pid,
                        report["latency_us"])
        found["to_learner_per_second"] = report["learned"] / report["seconds"]
        found["refused"] = report["refused"]
        return found
    finally:
        broker.end()


def raw(chosen, tokens, actors, scratch, tcp=False):
    tool = chosen.build / "tests" / "bench" / "broker" / "raw_zmq"
    keys = [Path(scratch) / "raw_keys"] if tcp else []
    folder = Path(scratch) / f"raw{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    endpoint = "tcp://127.0.0.1:*" if tcp else f"ipc://{folder}/s"
    server = subprocess.Popen([tool, "serve", endpoint, *keys], stdout=subprocess.PIPE, text=True)
    try:
        endpoint = server.stdout.readline().strip()
        records, size = upload_records(tokens), record_bytes(tokens)
        command = [tool, "load", endpoint, actors, records * size + FRAME_EXTRA, WINDOW, chosen.seconds, *keys]
        report, cpu = run_load(command, server.pid)
        found = figures(report["frames"] * records, report["seconds"], size, cpu, server.pid, report["latency_us"])
        found["to_learner_per_second"] = report["learned"] * records / report["seconds"]
        return found
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def redis(chosen, tokens, scratch, fsync):
    program = shutil.which("redis-server")
    if program is None:
        return {"skipped": "redis-server is not installed (Debian: apt-get install redis-server)"}
    folder = Path(scratch) / f"redis{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", folder / "s", "--dir", folder, "--appendonly", "yes",
         "--appendfsync", fsync, "--save", ""], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not (folder / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        records, size = upload_records(tokens), record_bytes(tokens)
        tool = chosen.build / "tests" / "bench" / "broker" / "redis_streams"
        report, cpu = run_load([tool, folder / "s", records, size, WINDOW, chosen.seconds], server.pid)
        found = figures(report["trajectories"], report["seconds"], size, cpu, server.pid, report["latency_us"])
        found["to_learner_per_second"] = report["learned"] / report["seconds"]
        return found
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def disk(chosen, tokens, scratch):
    """Sequential 1 MiB append + fdatasync."""
    path = Path(scratch) / "disk"
    block = os.urandom(1 << 20)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    times = []
    end = time.monotonic() + min(chosen.seconds, 3)
    begin = time.monotonic()
    while time.monotonic() < end:
        start = time.monotonic()
        os.write(file, block)
        os.fdatasync(file)
        times.append(time.monotonic() - start)
    total = time.monotonic() - begin
    os.close(file)
    path.unlink()
    times.sort()
    return {"per_second": len(times) * (1 << 20) / total / record_bytes(tokens),
            "bytes_per_second": len(times) * (1 << 20) / total,
            "latency_us": {"p50": 1e6 * statistics.median(times), "p99": 1e6 * times[int(0.99 * (len(times) - 1))]}}


def of(chosen, tokens, actors, scratch):
    """Names and measurements of one cell, in order."""
    step = [f"supervised.batch={batch(tokens)}"]
    none = [*step, "journal.compression=none"]
    found = []
    if "broker" in chosen.parts:
        for name, overrides, tcp in (
                ("thresher ipc async", none + ["journal.mode=async"], False),
                ("thresher ipc durable", none + ["journal.mode=durable"], False),
                ("thresher ipc durable zstd", step + ["journal.mode=durable", "journal.compression=zstd"], False),
                ("thresher tcp+curve async", none + ["journal.mode=async"], True)):
            found.append((name, lambda o=overrides, t=tcp: thresher(chosen, tokens, actors, scratch, o, t)))
    if "raw" in chosen.parts:
        found.append(("raw zeromq ipc", lambda: raw(chosen, tokens, actors, scratch)))
        found.append(("raw zeromq tcp+curve", lambda: raw(chosen, tokens, actors, scratch, True)))
    if "redis" in chosen.parts and actors == chosen.actors[0]:
        for fsync in ("everysec", "always"):
            found.append((f"redis streams {fsync}", lambda f=fsync: redis(chosen, tokens, scratch, f)))
    if "disk" in chosen.parts and actors == chosen.actors[0]:
        found.append(("1 MiB append + fdatasync", lambda: disk(chosen, tokens, scratch)))
    return found


# For all of many actors at once; the same steps in every case.
MUCH_WORK = ["supervised.batch=65536", "broker.lookahead_steps=10"]
# Credit of 10,000 actors for an upload each; the default follows actors.count.
MUCH_CREDIT = ["broker.memory_bytes=2147483648"]


def simulated(chosen, scratch, say):
    """Cost per trajectory of a broker whose actors are objects in its process."""
    tool = chosen.build / "tests" / "bench" / "broker" / "broker_load"
    # Equal work, for the first steps of a run cost less than later ones: less is kept.
    cases = [(actors, 200000) for actors in (1, 100, 1000)] + [(10000, 1000000)] if chosen.quick else \
            [(actors, 2000000) for actors in (1, 100, 1000, 10000)] + [(16, 10000000)]
    found = []
    for actors, trajectories in cases:
        run = Path(scratch) / f"simulated{actors}"
        subprocess.run([tool, "init", run, "journal.mode=async", "journal.compression=none", *MUCH_WORK,
                        *MUCH_CREDIT], check=True)
        try:
            done = subprocess.run([str(w) for w in (tool, "simulated", run, 128, actors, 16, trajectories)],
                                  check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        finally:
            shutil.rmtree(run, ignore_errors=True)
        tenths = [json.loads(text) for text in done.stdout.splitlines()]
        costs = [t["loop_us"] for t in tenths[1:]]
        row = {"actors": actors, "trajectories": trajectories, "load": os.getloadavg()[0],
               "loop_us": {"mean": statistics.mean(costs), "median": statistics.median(costs),
                           "min": min(costs), "max": max(costs)},
               "writer_us": statistics.median(t["writer_us"] for t in tenths[1:]), "tenths": tenths}
        say(f"  {actors} simulated actors, {trajectories} trajectories: loop {row['loop_us']['mean']:.2f} us each "
            f"({row['loop_us']['min']:.2f} to {row['loop_us']['max']:.2f} in tenths), writer {row['writer_us']:.2f} us, "
            f"load {row['load']:.1f}")
        found.append(row)
    return found


def connections(chosen, scratch, say):
    """Cost per trajectory with many real connections."""
    found = []
    for actors in (1, 100) if chosen.quick else (1, 100, 1000):
        broker = Broker(chosen, scratch, ["journal.mode=async", "journal.compression=none", *MUCH_WORK])
        try:
            report, cpu = broker.load(128, actors, chosen.seconds, outstanding=64)
            row = figures(report["trajectories"], report["seconds"], report["record_bytes"], cpu, broker.process.pid,
                          report["latency_us"])
        finally:
            broker.end()
        row.update(actors=actors, load=os.getloadavg()[0])
        say(f"  {actors} connections: {row['cpu_us']:.2f} us CPU each, {row['per_second']:,.0f}/s, load {row['load']:.1f}")
        found.append(row)
    return found
