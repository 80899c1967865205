"""Run directories that are half-written, another's, damaged or in use; ports that are taken."""

import shutil
import signal
import socket
import time
import unittest

import farm


class RunFolder(farm.FarmTest):
    interrupted_run = None

    def interrupted(self):
        """A run whose launcher was killed after its second checkpoint, in the supervised phase."""
        if type(self).interrupted_run is None:
            launched = self.start("interrupted")
            done = launched.run.folder / "checkpoints" / "step_000020" / "MANIFEST.json"
            self.wait_until(lambda: done.exists() and len(launched.run.metrics()) > 21,
                            "two checkpoints", launched)
            farm.kill(launched.process.pid)
            launched.finish()
            self.assert_nothing_running()
            type(self).interrupted_run = launched.run
        return type(self).interrupted_run

    def assert_nothing_running(self):
        self.wait_until(lambda: not farm.processes_of(self.scratch), "the end of all processes",
                        timeout=10)

    def broken(self, name):
        """A copy of the interrupted run, to be damaged."""
        target = self.scratch / name
        shutil.copytree(self.interrupted().folder, target,
                        ignore=shutil.ignore_patterns("sockets", "rendezvous.json"))
        return farm.Run(target)

    def refused(self, name, code, *said, overrides=()):
        """A start that must fail soon, with these words; leaves nothing running."""
        began = time.monotonic()
        launched = self.start(name, *overrides)
        result = launched.finish(30)
        self.assertIn(result.code, code, result)
        for text in said:
            self.assertIn(text, result.err, result)
        self.assertLess(time.monotonic() - began, 30)
        self.assert_nothing_left()
        return result

    def test_a_taken_http_port(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.refused("busy-http", (2, 3), address, "in use",
                         overrides=[f"net.http={address}"])

    def test_a_taken_tcp_port(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.refused("busy-tcp", (2, 3), address, overrides=[f"net.listen=tcp://{address}"])

    def test_a_half_written_folder(self):
        run = self.broken("half")
        (run.folder / "manifest.json").unlink()
        self.refused("half", (2,), "half", "no manifest.json", "--dir")
        self.assertTrue((run.folder / "journal" / "000001.log").exists())

    def test_a_damaged_manifest(self):
        run = self.broken("manifest")
        (run.folder / "manifest.json").write_text('{"format": 1, "run')
        self.refused("manifest", (2, 3), "manifest.json")

    def test_a_file_in_place_of_the_folder(self):
        (self.scratch / "file").write_text("not a folder\n")
        self.refused("file", (2, 3), str(self.scratch / "file"))
        self.assertEqual((self.scratch / "file").read_text(), "not a folder\n")

    def test_another_configuration_is_refused_by_key(self):
        run = self.broken("other")
        before = (run.folder / "config.yaml").read_text()
        result = self.refused("other", (2,), "another configuration", "rl.groups",
                              overrides=["rl.groups=16"])
        self.assertNotIn("actors.count", result.err)
        self.assertEqual((run.folder / "config.yaml").read_text(), before)

    def test_a_run_that_is_going_on_is_not_started_twice(self):
        launched = self.start("twice")
        self.wait_until(lambda: launched.run.metrics(), "the first step", launched)
        learner = launched.run.processes("learner")[0]
        farm.kill(learner, signal.SIGSTOP)  # the run cannot end meanwhile
        second = farm.Launched(launched.run, self.arguments(launched.run.folder, ()), "")
        result = second.finish(30)
        farm.kill(learner, signal.SIGCONT)
        self.assertEqual(result.code, 2, result)
        self.assertIn("being run by another process", result.err)
        self.assertEqual(launched.finish().code, 0)
        self.assertEqual(launched.run.hash(), self.reference().hash())

    def continues(self, run):
        self.run_farm(run.folder.name)
        self.assertEqual(run.hash(), self.reference().hash())
        self.assert_sound(run)

    def test_a_truncated_newest_checkpoint_is_passed_over(self):
        for number, file in enumerate(("model.safetensors", "trainer/optimizer.safetensors",
                                       "MANIFEST.json")):
            with self.subTest(file=file):
                run = self.broken(f"checkpoint-{number}")
                newest = max((run.folder / "checkpoints").glob("step_??????"))
                path = newest / file
                data = path.read_bytes()
                path.write_bytes(data[:len(data) // 2])
                self.continues(run)
                self.assertIn("checkpoint passed over", run.log("learner"))
                self.assertIn(newest.name, run.log("learner"))
                self.assertGreater(run.summary()["faults"]["retrained_steps"], 0)

    def journal_bytes(self, run):
        """The journal's file, its bytes, and where its records end (zeros are reserved space)."""
        path = run.folder / "journal" / "000001.log"
        data = path.read_bytes()
        return path, data, len(data.rstrip(b"\0"))

    def test_a_corrupt_journal_record_in_the_middle(self):
        run = self.broken("corrupt")
        path, data, end = self.journal_bytes(run)
        data = bytearray(data)
        data[end // 2] ^= 0x40
        path.write_bytes(data)
        result = self.refused("corrupt", (3,), "journal/000001.log", "record ", "offset ")
        self.assertEqual(path.read_bytes(), bytes(data), result)

    def test_a_torn_tail_of_the_journal_is_cut_off(self):
        run = self.broken("torn")
        path, data, end = self.journal_bytes(run)
        last = data[end - 200:end - 70]  # the beginning of some record, and not all of it
        path.write_bytes(data[:end] + last + data[end + len(last):])
        self.continues(run)
        self.assertEqual(len(run.events("torn_tail")), 1)

    def test_a_last_record_half_written_is_cut_off_and_its_work_done_again(self):
        run = self.broken("half-record")
        path, data, end = self.journal_bytes(run)
        path.write_bytes(data[:end - 9])
        self.continues(run)
        self.assertEqual(len(run.events("torn_tail")), 1)

    def test_a_missing_trajectory_store_is_told(self):
        run = self.broken("store")
        shutil.rmtree(run.folder / "trajectories")
        self.refused("store", (3,), "trajectories", "accepted and is not stored")

    def test_a_damaged_token_is_told(self):
        run = self.broken("token")
        (run.folder / "token").write_text("short\n")
        self.refused("token", (2, 3), "token")


if __name__ == "__main__":
    unittest.main()
