"""Whole runs on this machine: one undisturbed, others stopped, killed or refused; what the commands
say about them and about copies that were tampered with."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from support import CLI, CommandTest, call, processes_of, tamper

# Learns enough in seconds that groups have variance.
CONFIG = """
run: {name: small, seed: 5}
task: {numbers: 2, max_number: 9, max_target: 20}
model: {layers: 1, width: 48, heads: 3, kv_heads: 1, head_dim: 16, ffn_width: 96, context: 32,
        init_std: 0.08}
supervised: {steps: 120, batch: 32, warmup_steps: 5, learning_rate: 0.01}
rl: {steps: 12, groups: 8, group_size: 4}
sampling: {max_new_tokens: 16}
eval: {items: 12, samples: 4}
learner: {threads: 1, grad_leaves: 4}
checkpoint: {every: 20}
"""


def wait_for(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.02)


class Farm:
    """A `thresher run` in the background."""

    def __init__(self, config, run, *words):
        self.run = pathlib.Path(run)
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [CLI, "run", str(config), "--dir", str(run), *words], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self.errors, text=True)

    def steps(self):
        try:
            return len((self.run / "metrics.jsonl").read_text().splitlines())
        except OSError:
            return 0

    def said(self):
        """What it has written to standard error until now."""
        return os.pread(self.errors.fileno(), 1 << 24, 0).decode(errors="replace")

    def end(self, seconds=120):
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, self.said()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.errors.close()


class RunTest(CommandTest):
    @classmethod
    def setUpClass(cls):
        cls.base = pathlib.Path(tempfile.mkdtemp(prefix="thr-"))
        cls.addClassCleanup(shutil.rmtree, cls.base, ignore_errors=True)
        cls.config_file = cls.base / "small.yaml"
        cls.config_file.write_text(CONFIG)
        cls.done = cls.base / "run"
        cls.first = call("run", cls.config_file, "--dir", cls.done, timeout=300)
        if cls.first.returncode != 0:
            raise AssertionError(cls.first.stderr)
        cls.summary = json.loads((cls.done / "summary.json").read_text())

    def copy(self):
        target = self.folder / "copy"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.done, target)
        return target

    def farm(self, *words, directory=None):
        farm = Farm(self.config_file, directory or self.folder / "run", *words)
        self.addCleanup(farm.close)
        return farm

    def nothing_runs(self, folder):
        wait_for(lambda: not processes_of(folder), f"the processes of {folder} to end", 20)

    # -- an undisturbed run

    def test_ends_with_a_summary_on_standard_error(self):
        self.assertEqual(self.first.stdout, "")
        for part in ("held-out results", "conservation", "train: issued 384 = trained",
                     "mismatch 0 of", "final weights " + self.summary["final"]["hash"],
                     "thresher audit"):
            self.assertIn(part, self.first.stderr)

    def test_trains_without_mismatch_or_overlap(self):
        self.assertGreater(self.summary["tokens"]["audited"], 0)
        self.assertEqual(self.summary["tokens"]["mismatched"], 0)
        self.assertEqual(self.summary["heldout_overlap"], 0)
        self.assertTrue(self.summary["ledger"]["balanced"])

    def test_leaves_no_process_and_no_socket(self):
        self.assertEqual(processes_of(self.done), [])
        self.assertFalse((self.done / "sockets").exists())

    def test_is_not_run_again(self):
        done = self.expect(0, "run", self.config_file, "--dir", self.done)
        self.assertIn("already finished", done.stderr)
        self.assertEqual(json.loads((self.done / "summary.json").read_text()), self.summary)

    def test_another_configuration_is_refused_by_key(self):
        done = self.expect(2, "run", self.config_file, "--dir", self.done, "--set", "rl.groups=4")
        self.assertIn("rl.groups", done.stderr)

    # -- replay

    def test_replays_equal(self):
        done = self.expect(0, "replay", self.done, "--random", 50, "--seed", 3, "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len({line["id"] for line in lines}), 50)
        self.assertTrue(all(line["equal"] for line in lines))

    def test_replays_on_the_device_that_is_asked_for_or_not_at_all(self):
        self.expect(0, "replay", self.done, "--random", 2, "--device", "cpu")
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        for command in (("replay", self.done, "--random", 2), ("eval", self.done, "--items", 2)):
            done = self.expect(3, *command, "--device", "cuda", env=hidden)
            self.assertEqual(done.stdout, "")
            self.assertRegex(done.stderr, r"^thresher: \w+: --device cuda: .*GPU.*\n$")
            self.expect(2, *command, "--device", "gpu")

    def test_replays_a_wiped_copy_equal_to_the_original(self):
        copy = self.copy()
        tamper(copy, "wipe")
        self.expect(1, "replay", copy, "--random", 20)
        self.expect(0, "replay", copy, "--random", 50, "--against", self.done)

    def test_names_the_position_of_an_altered_token(self):
        copy = self.copy()
        tamper(copy, "token", "train/0/3/1", 8)
        done = self.expect(1, "replay", copy, "train/0/3/1", "train/0/3/2")
        self.assertRegex(done.stdout, r"train/0/3/1: differs at position 8: token \d+, replayed \d+")
        self.assertRegex(done.stdout, r"train/0/3/2: .* equal")

    def test_names_the_oldest_version_outside_the_window(self):
        copy = self.copy()
        (copy / "weights" / "0.120.safetensors").unlink()
        done = self.expect(3, "replay", copy, "train/0/0/0")
        self.assertIn("0.120", done.stderr)
        self.assertIn("0.121", done.stderr)

    def test_an_id_that_does_not_exist_is_told(self):
        for words in (("replay", self.done, "train/0/99999/0"),
                      ("trajectories", self.done, "show", "train/0/99999/0")):
            self.assertIn("train/0/99999/0", self.expect(2, *words).stderr)
        self.assertIn("train-0", self.expect(2, "replay", self.done, "train-0").stderr)

    # -- audit

    def test_is_sound(self):
        report = json.loads(self.expect(0, "audit", self.done, "--json").stdout)
        self.assertTrue(report["sound"])
        train = report["streams"]["train"]
        self.assertEqual(train["issued"], train["trained"] + train["dropped"])
        self.assertGreater(train["trained"], 0)

    def test_names_tampered_journal_records(self):
        kinds = {}
        for line in tamper(self.done, "journal", "list").splitlines():
            number, kind = line.split()
            kinds.setdefault(kind, []).append(int(number))
        self.assertEqual(len(kinds), 10)
        for kind, numbers in kinds.items():
            for how in ("remove", "double", "alter"):
                copy = self.copy()
                tamper(copy, "journal", how, numbers[len(numbers) // 2])
                done = call("audit", copy)
                self.assertEqual(done.returncode, 1, f"{how} {kind}")
                self.assertIn("problem: ", done.stdout)

    def test_names_tampered_trajectories(self):
        for how in ("remove", "double"):
            copy = self.copy()
            tamper(copy, "store", how, "supervised/0/77/0")
            self.assertIn("supervised/0/77/0", self.expect(1, "audit", copy).stdout)
        copy = self.copy()
        tamper(copy, "token", "eval/0/3/1", 9)
        self.assertIn("eval/0/3/1", self.expect(1, "audit", copy).stdout)

    # -- looking

    def test_trajectories_are_listed_by_filter(self):
        done = self.expect(0, "trajectories", self.done, "--stream", "train", "--item", 3, "--json")
        ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
        self.assertEqual(sorted(ids), [f"train/0/3/{s}" for s in range(4)])

    def listed(self, *words):
        done = self.expect(0, "trajectories", self.done, *words)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_filters_cut_the_trajectories_in_parts(self):
        everything = self.listed("--json", "--limit", 0)
        self.assertEqual(len(everything), 120 * 32 + 12 * 32 + 2 * 12 * 4)
        shortest = min(row["tokens"] for row in everything)
        for option, parts, of in (("--reward", (":0.5", "0.5000001:"), "reward"),
                                  ("--length", (f":{shortest}", f"{shortest + 1}:"), "tokens"),
                                  ("--step", (":100", "101:"), "version")):
            kept = [self.listed("--json", "--limit", 0, option, part) for part in parts]
            self.assertTrue(all(kept), option)
            self.assertEqual(sum(map(len, kept)), len(everything), option)
            self.assertFalse({row[of] for row in kept[0]} & {row[of] for row in kept[1]}, option)
        scored = self.listed("--json", "--limit", 0, "--outcome", "scored")
        self.assertEqual({row["outcome"] for row in scored}, {"scored"})
        self.assertEqual(len(scored), sum(row["outcome"] == "scored" for row in everything))

    def test_export_writes_whole_records(self):
        rows = self.listed("export", "--stream", "train", "--step", 125)
        self.assertEqual(len(rows), 32)
        for row in rows:
            self.assertEqual(row["versions"][0]["version"], "0.125")
            self.assertEqual(len(row["logprobs"]), sum(s["end"] - s["begin"] for s in row["segments"]
                                                       if s["role"] == "policy"))
        shown = json.loads(self.expect(0, "trajectories", self.done, "show", rows[0]["id"], "--json").stdout)
        self.assertEqual(shown, rows[0])
        by_prompt = self.listed("export", "--stream", "train", "--prompt", rows[0]["prompt_hash"][:20])
        self.assertIn(rows[0], by_prompt)
        self.assertEqual({row["prompt_hash"] for row in by_prompt}, {rows[0]["prompt_hash"]})
        actors = {row["actor"] for row in rows}
        self.assertEqual(sum(len(self.listed("export", "--stream", "train", "--step", 125, "--actor", a))
                             for a in actors), 32)
        self.assertEqual(len(self.listed("export", "--limit", 7)), 7)

    def test_filters_that_make_no_sense_are_refused(self):
        for words in (("--reward", "3:2"), ("--outcome", "good"), ("--stream", "trains"),
                      ("--length", "x"), ("export", "twice")):
            self.assertNotEqual(self.expect(2, "trajectories", self.done, *words).stderr, "")

    def test_a_list_says_that_there_is_more(self):
        done = self.expect(0, "trajectories", self.done, "--limit", 3)
        self.assertEqual(len(done.stdout.splitlines()), 4)
        self.assertIn("--limit 0", done.stderr)

    def test_status_of_a_finished_run(self):
        self.assertIn("ledger balanced", self.expect(0, "status", self.done).stdout)
        status = json.loads(self.expect(0, "status", self.done, "--json").stdout)
        self.assertEqual(status["final"]["hash"], self.summary["final"]["hash"])

    def test_eval_takes_the_runs_task_and_newest_checkpoint(self):
        done = self.expect(0, "eval", self.done, "--items", 50, "--samples", 4, "--k", "1,4")
        result = json.loads(done.stdout)
        self.assertEqual(result["task"]["numbers"], 2)
        self.assertTrue(result["model"].endswith("step_000132"))
        self.assertGreater(result["pass_at"]["1"]["value"], 0)
        self.assertGreaterEqual(result["pass_at"]["4"]["value"], result["pass_at"]["1"]["value"])
        again = json.loads(
            self.expect(0, "eval", self.done, "--items", 50, "--samples", 4, "--k", "1,4").stdout)
        self.assertEqual(again["pass_at"], result["pass_at"])

    # -- disturbed runs

    def test_goes_on_after_ctrl_c_to_the_same_weights(self):
        farm = self.farm()
        wait_for(lambda: farm.steps() >= 30, "30 steps")
        farm.process.send_signal(signal.SIGINT)
        code, _, err = farm.end()
        self.assertEqual(code, 75, err)
        self.assertIn("saved: checkpoints/step_", err)
        self.assertRegex(err, r"to go on: thresher run \S+ --dir")
        self.nothing_runs(farm.run)
        self.expect(0, "audit", farm.run)
        self.expect(0, "run", self.config_file, "--dir", farm.run, timeout=300)
        summary = json.loads((farm.run / "summary.json").read_text())
        self.assertEqual(summary["final"]["hash"], self.summary["final"]["hash"])
        self.expect(0, "audit", farm.run)

    def test_a_second_ctrl_c_ends_at_once(self):
        farm = self.farm()
        wait_for(lambda: farm.steps() >= 5, "5 steps")
        for pid, _ in processes_of(farm.run):  # nobody answers a request
            if pid != farm.process.pid:
                os.kill(pid, signal.SIGSTOP)
        farm.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping in order" in farm.said(), "the first to be seen", 20)
        farm.process.send_signal(signal.SIGINT)
        code, _, err = farm.end(20)
        self.assertEqual(code, 75, err)
        self.nothing_runs(farm.run)

    def test_a_killed_supervisor_leaves_nothing_and_goes_on(self):
        farm = self.farm()
        wait_for(lambda: farm.steps() >= 10, "10 steps")
        farm.process.kill()
        farm.process.communicate()
        self.nothing_runs(farm.run)
        self.expect(0, "run", self.config_file, "--dir", farm.run, timeout=300)
        summary = json.loads((farm.run / "summary.json").read_text())
        self.assertEqual(summary["final"]["hash"], self.summary["final"]["hash"])

    def test_deaths_of_all_kinds_change_nothing(self):
        faults = ",".join((
            "actor-0:kill@decode=50", "actor-0:kill@upload=3#1", "actor-1:kill@swap=4",
            "broker:kill@committed=40", "broker:kill@accepted=1200#1", "broker:kill@durable=2#2",
            "learner-0:kill@step=55", "learner-0:kill@step=70#1"))
        done = self.expect(0, "run", self.config_file, "--dir", self.folder / "run", timeout=300,
                           env={**os.environ, "THRESHER_FAULT": faults})
        for name, deaths in (("actor-0", 2), ("actor-1", 1), ("broker", 3), ("learner", 2)):
            self.assertEqual(done.stderr.count(f"{name}: SIGKILL, restarted"), deaths, done.stderr)
        summary = json.loads((self.folder / "run" / "summary.json").read_text())
        self.assertEqual(summary["final"]["hash"], self.summary["final"]["hash"])
        self.assertEqual(summary["mismatched_tokens"], 0)
        self.expect(0, "audit", self.folder / "run")
        self.expect(0, "replay", self.folder / "run", "--random", 30, "--against", self.done)

    @unittest.skipUnless(shutil.which("mpirun"), "no mpirun")
    def test_two_ranks_end_with_the_same_weights(self):
        self.expect(0, "run", self.config_file, "--dir", self.folder / "run", "--set",
                    "learner.ranks=2", timeout=300)
        summary = json.loads((self.folder / "run" / "summary.json").read_text())
        self.assertEqual(summary["final"]["hash"], self.summary["final"]["hash"])
        self.nothing_runs(self.folder / "run")

    @unittest.skipUnless(shutil.which("mpirun"), "no mpirun")
    def test_a_killed_supervisor_leaves_no_rank(self):
        farm = self.farm("--set", "learner.ranks=2")
        wait_for(lambda: farm.steps() >= 5, "5 steps")
        farm.process.kill()
        farm.process.communicate()
        self.nothing_runs(farm.run)

    def test_status_of_a_run_that_goes_on_and_one_supervisor_at_a_time(self):
        farm = self.farm("--set", "supervised.steps=100000")
        wait_for(lambda: farm.steps() >= 3, "3 steps")
        done = self.expect(0, "status", farm.run)
        self.assertRegex(done.stdout, r"(?m)^supervised \d+/100000  ")
        self.assertIn("ledger balanced", done.stdout)
        status = json.loads(self.expect(0, "status", farm.run, "--json").stdout)
        self.assertEqual(status["phase"], "supervised")
        address = json.loads((farm.run / "rendezvous.json").read_text())["http"]
        token = (farm.run / "token").read_text().strip()
        self.expect(0, "status", f"http://{address}/?token={token}")
        self.expect(3, "status", f"http://{address}/?token=wrong")
        second = self.expect(2, "run", self.config_file, "--dir", farm.run, "--set",
                             "supervised.steps=100000")
        self.assertIn("being run by another process", second.stderr)
        farm.process.send_signal(signal.SIGTERM)
        self.assertEqual(farm.end()[0], 75)
        self.nothing_runs(farm.run)

    def test_a_busy_port_is_told_and_nothing_is_left(self):
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            port = busy.getsockname()[1]
            done = self.expect(3, "run", self.config_file, "--dir", self.folder / "run", "--set",
                               f"net.http=127.0.0.1:{port}")
        self.assertIn(str(port), done.stderr)
        self.nothing_runs(self.folder / "run")


if __name__ == "__main__":
    unittest.main()
