"""What may knock at the broker's doors while a run goes on: strangers, noise, friends of other hosts."""

import json
import os
import random
import shutil
import subprocess
import unittest

import farm
import zmtp


class Network(farm.FarmTest):
    OVERRIDES = ("supervised.steps=240", "net.listen=tcp://127.0.0.1:0")

    def started(self, name, *overrides):
        """A run whose broker listens: the launched run and its ipc and tcp endpoints."""
        launched = self.start(name, *overrides)
        self.wait_until(lambda: launched.run.status(), "a broker", launched)
        endpoints = launched.run.json("rendezvous.json")["endpoints"]
        self.assertEqual([e.split(":")[0] for e in endpoints], ["ipc", "tcp"])
        return launched, *endpoints

    def finished(self, launched):
        """The run must end as if nothing had happened."""
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(launched.run)}")
        self.assertEqual(launched.run.hash(), self.reference().hash())
        self.assertEqual(launched.run.summary()["faults"]["broker_starts"], 1)
        self.assert_sound(launched.run)

    def numbers(self, launched):
        """Counters and gauges of the broker."""
        status = launched.run.status()
        return {**status["counters"], **status["gauges"]} if status else {}

    def test_noise_on_the_tcp_port(self):
        noise = random.Random(7)
        launched, _, tcp = self.started("noise")
        payloads = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 4096, b"\xff" * 4096,
                    zmtp.greeting(b"CURVE")[:17]]
        payloads += [noise.randbytes(noise.randrange(1, 5000)) for _ in range(20)]
        payloads += [zmtp.greeting(b"CURVE") + zmtp.command(b"HELLO", noise.randbytes(194)),
                     zmtp.greeting(b"CURVE") + noise.randbytes(2000)]
        for payload in payloads:
            with zmtp.connect(tcp) as stream:
                try:
                    stream.sendall(payload)
                except ConnectionError:
                    pass  # the broker hung up in the middle
        self.finished(launched)

    def test_a_peer_without_a_key_gets_no_answer(self):
        launched, _, tcp = self.started("keyless")
        for mechanism in (b"NULL", b"PLAIN"):
            with zmtp.connect(tcp) as stream:
                stream.sendall(zmtp.greeting(mechanism))
                heard = b""
                while len(heard) < 64 and (more := zmtp.receive_some(stream)):
                    heard += more
                self.assertNotIn(mechanism, heard)  # the broker offers CURVE alone
                try:
                    stream.sendall(zmtp.ready() + zmtp.message(b"hello"))
                except ConnectionError:
                    continue
                self.assertEqual(zmtp.receive_some(stream), b"")
        self.wait_for_counts(launched, 2, "handshakes_refused")
        self.assertEqual(self.numbers(launched).get("frames_malformed", 0), 0)
        self.finished(launched)

    def test_malformed_and_oversized_frames_are_counted_and_dropped(self):
        noise = random.Random(11)
        launched, ipc, _ = self.started("frames", "weights.chunk_bytes=16384",
                                        "broker.max_message_bytes=65536")
        with zmtp.join(ipc) as stream:
            for _ in range(10):
                stream.sendall(zmtp.message(noise.randbytes(noise.randrange(1, 400))))
            stream.sendall(zmtp.message(b"THR1" + noise.randbytes(60)) + zmtp.message(b""))
            self.wait_for_counts(launched, 12, "frames_malformed", "frames_damaged",
                                 "frames_oversized", "frames_other_version")
            stream.sendall(zmtp.message(b"one", b"two", b"three"))
            stream.sendall(zmtp.message(noise.randbytes(65536 + 1)))
            self.wait_for_counts(launched, 2, "messages_refused")
        # Beyond twice the limit the connection ends, before the bytes are taken in.
        with zmtp.join(ipc) as stream:
            with self.assertRaises(OSError):
                while True:
                    stream.sendall(zmtp.message(bytes(65536 * 8)))
        self.finished(launched)

    def wait_for_counts(self, launched, number, *names):
        def count():
            numbers = self.numbers(launched)
            return sum(numbers.get(name, 0) for name in names) >= number
        self.wait_until(count, f"{number} of {names}", launched, 20)

    def copy_for_another_host(self, run, name):
        target = self.scratch / name
        target.mkdir()
        for part in ("config.yaml", "manifest.json"):
            shutil.copy(run.folder / part, target)
        for part in ("model", "keys"):
            shutil.copytree(run.folder / part, target / part)
        return target

    def actor(self, folder, tcp, index, patience=30):
        return subprocess.Popen(
            [farm.program("thresher-actor"), "--run", str(folder), "--broker", tcp, "--index",
             str(index), "--patience", str(patience)], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=farm.environment())

    def test_an_actor_started_by_hand_from_a_copy_contributes(self):
        launched, _, tcp = self.started("by-hand", "actors.count=1")
        folder = self.copy_for_another_host(launched.run, "other-host")
        actor = self.actor(folder, tcp, 7)

        def contributes():
            actors = (launched.run.status() or {}).get("actors", [])
            mine = [a for a in actors if a["index"] == 7]
            return mine and mine[0]["counters"].get("trajectories", 0) + \
                mine[0]["counters"].get("references", 0) > 0
        self.wait_until(contributes, "actor 7 to contribute", launched)
        self.finished(launched)
        _, text = actor.communicate(timeout=30)
        self.assertEqual(actor.returncode, 0, text)

    def test_an_actor_with_other_keys_or_of_another_run_is_kept_out(self):
        launched, _, tcp = self.started("foreign")
        unknown = self.copy_for_another_host(launched.run, "unknown-keys")
        for key in (unknown / "keys").iterdir():
            if "broker" not in key.name:
                key.unlink()  # the actor makes itself new ones, which nobody knows
        foreign = self.copy_for_another_host(launched.run, "foreign-run")
        manifest = json.loads((foreign / "manifest.json").read_text())
        manifest["run_id"] = "0123456789abcdef" * 2
        (foreign / "manifest.json").write_text(json.dumps(manifest))
        actors = [self.actor(unknown, tcp, 8, 2), self.actor(foreign, tcp, 9, 2)]
        self.wait_for_counts(launched, 1, "frames_foreign")
        self.wait_for_counts(launched, 1, "handshakes_refused")
        status = self.wait_until(launched.run.status, "the status", launched)
        indexes = {a["index"] for a in status["actors"]}
        self.assertFalse(indexes & {8, 9}, indexes)
        self.finished(launched)
        for actor in actors:
            _, text = actor.communicate(timeout=30)
            self.assertEqual(actor.returncode, 3, text)

    def test_status_asks_for_the_token_and_the_equation_always_holds(self):
        launched = self.start("status")
        run = launched.run
        self.wait_until(run.status, "a broker", launched)
        for token in ("", "0" * 64, "x"):
            code, text = run.http(token=token)
            self.assertEqual(code, 401, text)
            self.assertNotIn("ledger", text)
            self.assertEqual(run.http("/metrics", token=token)[0], 401)
        code, text = run.http("/metrics")
        self.assertEqual(code, 200)
        self.assertIn("thresher_", text)
        samples, steps = 0, []
        while launched.alive():
            status = run.status()
            if status is None:
                continue
            samples += 1
            steps.append(status["step"])
            self.assert_balanced(status["ledger"])
        self.assertGreater(samples, 20)
        self.assertEqual(steps, sorted(steps))
        self.assertGreater(len(set(steps)), 2)
        self.finished(launched)

    def assert_balanced(self, ledger):
        self.assertTrue(ledger["balanced"], ledger)
        for part in (ledger["total"], *ledger["streams"]):
            self.assertEqual(part["dropped_total"], sum(part["dropped"].values()), part)
            self.assertEqual(part["held_total"], sum(part["held"].values()), part)
            self.assertEqual(part["issued"], part["trained"] + part["evaluated"] +
                             part["dropped_total"] + part["held_total"], part)

    def test_the_token_is_readable_by_its_owner_alone(self):
        run = self.reference()
        self.assertEqual(os.stat(run.folder / "token").st_mode & 0o777, 0o600)
        for key in (run.folder / "keys").iterdir():
            self.assertEqual(os.stat(key).st_mode & 0o077, 0, key)


if __name__ == "__main__":
    unittest.main()
