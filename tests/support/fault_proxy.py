"""A TCP proxy that does to connections what bad networks and bad hosts do.

Every chunk is late by `latency_s` and up to `jitter_s` more, in order. Now and then (`every_s`, the
mean time between two of one connection; None: never) a connection meets one of KINDS, in one
direction where that has a meaning:

  cut        both sides are reset
  half_open  one side is reset, the other hears nothing more and is reset later
  stall      nothing passes for a while, then everything does
  slow       the receiver reads SLOW_BYTES_PER_S for a while
  garbage    bytes that nobody sent are put in the stream

`strike` makes a connection meet the next one at once. Kinds are dealt from a shuffled pack, each once
before one comes again, so that a few faults are of all kinds. What else is drawn depends on the seed
and the number of the connection alone; when it strikes, on time.
By hand: python3 fault_proxy.py HOST:PORT [--listen PORT] [--seed N] [--every SECONDS] ...
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import random
import threading
import time

KINDS = ("cut", "half_open", "stall", "slow", "garbage")
SLOW_BYTES_PER_S = 4096
CHUNK_BYTES = 1 << 16
MOST_WAITING = 64  # chunks on their way in one direction: the sender then feels it


@dataclasses.dataclass(frozen=True)
class Weather:
    """What happens to connections. Seconds; `lasting_s`: how long a fault lasts, from and to."""
    latency_s: float = 0.0
    jitter_s: float = 0.0
    every_s: float | None = None
    lasting_s: tuple = (0.2, 2.0)
    kinds: tuple = KINDS


class _Way:
    """One direction of a connection."""

    def __init__(self, link, reader, writer):
        self.link, self.reader, self.writer = link, reader, writer
        self.open = asyncio.Event()  # cleared while stalled
        self.open.set()
        self.slow = False
        self.garbage = b""
        self.chunks = asyncio.Queue(MOST_WAITING)

    async def take_in(self):
        """Reads what comes and says when it is due; an end comes in its turn, too."""
        weather, due, data = self.link.proxy.weather, 0.0, True
        while data:
            data = await self.reader.read(256 if self.slow else CHUNK_BYTES)
            late = weather.latency_s + weather.jitter_s * self.link.chance.random()
            due = max(due, time.monotonic() + late)
            await self.chunks.put((due, data))
            if self.slow:
                await asyncio.sleep(len(data) / SLOW_BYTES_PER_S)
        await asyncio.Event().wait()  # hand_on says when it is over

    async def hand_on(self):
        data = True
        while data:
            due, data = await self.chunks.get()
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await self.open.wait()
            garbage, self.garbage = self.garbage, b""
            self.writer.write(garbage + data)
            await self.writer.drain()
            self.link.proxy.bytes += len(data)


class _Link:
    """One proxied connection, until one side closes it or a fault does."""

    def __init__(self, proxy, number):
        self.proxy, self.number = proxy, number
        self.chance = random.Random(f"{proxy.seed}/{number}")
        self.ways, self.pumps = (), ()
        self.over, self.struck = asyncio.Event(), asyncio.Event()

    async def run(self, reader, writer, other_reader, other_writer):
        self.ways = (_Way(self, reader, other_writer), _Way(self, other_reader, writer))
        self.pumps = [asyncio.ensure_future(self.watch(pump()))
                      for way in self.ways for pump in (way.take_in, way.hand_on)]
        disturber = asyncio.ensure_future(self.watch(self.disturb()))
        try:
            await self.over.wait()
        finally:
            self.proxy._at_peace.discard(self)
            for task in (*self.pumps, disturber):
                task.cancel()
            await asyncio.gather(*self.pumps, disturber, return_exceptions=True)
            for way in self.ways:
                way.writer.transport.abort()

    async def watch(self, work):
        """The end of any of them is the connection's, unless a fault has cancelled it."""
        with contextlib.suppress(OSError):
            await work
        self.over.set()

    async def disturb(self):
        """Ends when the connection shall."""
        while True:
            every_s = self.proxy.weather.every_s
            self.proxy._at_peace.add(self)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.struck.wait(),
                                       0.1 if every_s is None else self.chance.expovariate(1 / every_s))
            weather, struck = self.proxy.weather, self.struck.is_set()
            self.proxy._at_peace.discard(self)
            self.struck.clear()
            if not struck and (every_s is None or weather.every_s is None):
                continue
            kind = self.proxy.deal()
            self.proxy.counts[kind] += 1
            fault = getattr(self, kind)
            if await fault(self.chance.choice(self.ways), self.chance.uniform(*weather.lasting_s)):
                return

    # Each returns whether the connection is over.
    async def cut(self, way, lasting_s):
        return True

    async def half_open(self, way, lasting_s):
        for pump in self.pumps:
            pump.cancel()
        way.writer.transport.abort()
        await asyncio.sleep(lasting_s)
        return True

    async def stall(self, way, lasting_s):
        way.open.clear()
        await asyncio.sleep(lasting_s)
        way.open.set()
        return False

    async def slow(self, way, lasting_s):
        way.slow = True
        await asyncio.sleep(lasting_s)
        way.slow = False
        return False

    async def garbage(self, way, lasting_s):
        way.garbage = self.chance.randbytes(self.chance.randrange(1, 300))
        return False


class FaultProxy:
    """Listens on 127.0.0.1 and passes on to what `upstream()` returns, (host, port) or None while
    there is nobody. On a thread of its own, from `with` to its end. `weather` may be replaced at any
    time; `counts` says what has happened, by kind, and `connections` and `refused`."""

    def __init__(self, upstream, weather=Weather(), seed=1, port=0):
        self.upstream, self.weather, self.seed, self.port = upstream, weather, seed, port
        self.counts = collections.Counter()
        self.bytes = 0
        self._dealer, self._pack = random.Random(f"{seed}/kinds"), []
        self._loop = asyncio.new_event_loop()
        self._links, self._at_peace = set(), set()  # tasks; those that wait for their next fault
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def deal(self):
        """The kind of the next fault, whoever it strikes."""
        self._pack = [kind for kind in self._pack if kind in self.weather.kinds]
        if not self._pack:
            self._pack = self._dealer.sample(self.weather.kinds, len(self.weather.kinds))
        return self._pack.pop()

    def strike(self):
        """A fault for a connection that has none, now; for none if there is none."""
        self._loop.call_soon_threadsafe(self._strike)

    def _strike(self):
        if self._at_peace:
            self._dealer.choice(sorted(self._at_peace, key=lambda link: link.number)).struck.set()

    @property
    def endpoint(self):
        return f"tcp://127.0.0.1:{self.port}"

    def _run(self):
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self):
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._links.add(task)
        self.counts["connections"] += 1
        number = self.counts["connections"]
        try:
            target = self.upstream()
            other = await asyncio.open_connection(*target) if target else None
        except OSError:
            other = None
        try:
            if other is None:
                self.counts["refused"] += 1
                writer.transport.abort()
            else:
                await _Link(self, number).run(reader, writer, *other)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._links.discard(task)


def main():
    parser = argparse.ArgumentParser(description="A TCP proxy that misbehaves")
    parser.add_argument("upstream", metavar="HOST:PORT")
    parser.add_argument("--listen", type=int, default=0, metavar="PORT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--jitter", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--every", type=float, default=None, metavar="SECONDS",
                        help="mean time between two faults of a connection; default: none")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    host, port = options.upstream.rsplit(":", 1)
    weather = Weather(options.latency, options.jitter, options.every, kinds=tuple(options.kinds))
    with FaultProxy(lambda: (host, int(port)), weather, options.seed, options.listen) as proxy:
        print(proxy.endpoint, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(5)
                print(dict(proxy.counts), flush=True)


if __name__ == "__main__":
    main()
