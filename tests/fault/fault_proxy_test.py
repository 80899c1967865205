"""The proxy that the other tests trust to misbehave: each fault does what it says, and nothing else happens."""

import contextlib
import socket
import threading
import time
import unittest

from fault_proxy import KINDS, SLOW_BYTES_PER_S, FaultProxy, Weather


class Echo:
    """Sends back what it hears; knows how its connections ended."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.ends = []
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self.serve, args=(stream,)))
                self.threads[-1].start()

    def serve(self, stream):
        stream.settimeout(10)
        with stream:
            try:
                while data := stream.recv(1 << 16):
                    stream.sendall(data)
                self.ends.append("closed")
            except OSError as error:
                self.ends.append(type(error).__name__)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join()


class FaultProxyTest(unittest.TestCase):
    def setUp(self):
        self.echo = Echo()
        self.addCleanup(self.echo.close)

    def through(self, weather, seed=1):
        proxy = FaultProxy(lambda: self.echo.address, weather, seed)
        self.enterContext(proxy)
        stream = socket.create_connection(("127.0.0.1", proxy.port), 10)
        self.addCleanup(stream.close)
        return proxy, stream

    def enterContext(self, context):  # a method of unittest since Python 3.11
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def read(self, stream, count):
        heard = b""
        while len(heard) < count and (more := stream.recv(1 << 16)):
            heard += more
        return heard

    def test_a_fair_day_changes_no_byte_and_no_order(self):
        proxy, stream = self.through(Weather())
        sent = bytes(range(256)) * 4000
        writer = threading.Thread(target=stream.sendall, args=(sent,))
        writer.start()
        self.assertEqual(self.read(stream, len(sent)), sent)
        writer.join()
        self.assertEqual(proxy.counts, {"connections": 1})

    def test_latency_comes_on_top_and_keeps_the_order(self):
        _, stream = self.through(Weather(latency_s=0.1, jitter_s=0.1))
        begin, sent = time.monotonic(), [bytes([i]) * 10 for i in range(30)]
        for part in sent:
            stream.sendall(part)
            time.sleep(0.002)
        self.assertEqual(self.read(stream, 300), b"".join(sent))
        self.assertGreater(time.monotonic() - begin, 0.2)  # there and back

    def strikes(self, kind, lasting_s=(0.5, 0.5)):
        proxy, stream = self.through(Weather(every_s=0.02, lasting_s=lasting_s, kinds=(kind,)))
        while not proxy.counts[kind]:
            time.sleep(0.005)
        proxy.weather = Weather()
        return stream

    def test_a_cut_connection_is_reset_on_both_sides(self):
        stream = self.strikes("cut")
        with contextlib.suppress(ConnectionError):
            self.assertEqual(stream.recv(1), b"")
        while not self.echo.ends:
            time.sleep(0.005)

    def test_a_half_open_connection_is_known_to_one_side_only(self):
        ended = set()
        for seed in range(1, 9):  # both ways are drawn
            proxy, stream = self.through(Weather(every_s=0.01, lasting_s=(0.4, 0.4),
                                                 kinds=("half_open",)), seed)
            before = len(self.echo.ends)
            while not proxy.counts["half_open"]:
                time.sleep(0.002)
            time.sleep(0.1)
            stream.setblocking(False)
            try:
                here = stream.recv(1) == b""
            except BlockingIOError:
                here = False
            except ConnectionError:
                here = True
            there = len(self.echo.ends) > before
            self.assertNotEqual(here, there)
            ended.add(here)
            while len(self.echo.ends) == before:  # and later to both
                time.sleep(0.005)
        self.assertEqual(ended, {True, False})

    def test_a_stalled_connection_goes_on_with_every_byte(self):
        stream = self.strikes("stall", (0.5, 0.5))
        begin = time.monotonic()
        stream.sendall(b"late")
        self.assertEqual(self.read(stream, 4), b"late")
        self.assertGreater(time.monotonic() - begin, 0.2)

    def test_a_slow_reader_takes_its_time(self):
        proxy, stream = self.through(Weather(every_s=0.02, lasting_s=(60, 60), kinds=("slow",)))
        while not proxy.counts["slow"]:
            time.sleep(0.005)
        stream.sendall(b"x")  # what a read under way still took fast
        self.read(stream, 1)
        begin, count = time.monotonic(), SLOW_BYTES_PER_S // 2
        stream.sendall(bytes(count))
        self.assertEqual(self.read(stream, count), bytes(count))
        self.assertGreater(time.monotonic() - begin, 0.35)

    def test_garbage_is_added_to_the_stream(self):
        stream = self.strikes("garbage")
        stream.sendall(b"mine")
        heard = b""
        while not heard.endswith(b"mine"):
            heard += stream.recv(1 << 16)
        self.assertGreater(len(heard), 4)

    def test_the_same_seed_draws_the_same_faults(self):
        drawn = []
        for _ in range(2):
            proxy, stream = self.through(Weather(every_s=0.01, lasting_s=(0, 0), kinds=KINDS[2:]), 5)
            while sum(proxy.counts[kind] for kind in KINDS) < 1:
                time.sleep(0.002)
            proxy.weather = Weather()
            drawn.append(next(kind for kind in KINDS if proxy.counts[kind]))
        self.assertEqual(*drawn)

    def test_a_strike_does_not_wait_for_bad_weather(self):
        proxy, stream = self.through(Weather(kinds=("cut",)))
        stream.sendall(b"mine")
        self.assertEqual(self.read(stream, 4), b"mine")
        proxy.strike()
        with contextlib.suppress(ConnectionError):
            self.assertEqual(stream.recv(1), b"")
        self.assertEqual(proxy.counts["cut"], 1)

    def test_nobody_upstream_is_a_refusal(self):
        proxy = self.enterContext(FaultProxy(lambda: None))
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as stream:
            with contextlib.suppress(ConnectionError):
                self.assertEqual(stream.recv(1), b"")
        self.assertEqual(proxy.counts["refused"], 1)


if __name__ == "__main__":
    unittest.main()
