"""The command line without a run: solver, check, usage errors, bad input."""

import json
import os
import pathlib
import re
import time
import unittest

from support import ROOT, CommandTest, call


def without_gpus():
    """The environment of a machine whose GPUs, if it has any, are hidden."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


class SolveTest(CommandTest):
    def test_counts_known_boards(self):
        for count, target, numbers in ((1309, 69, "1 2 4 9 22 25"), (331, 269, "2 3 7 20 21 25"),
                                       (56, 431, "3 4 6 9 11 15")):
            done = self.expect(0, "solve", "digits", "--count", "--target", target, *numbers.split())
            self.assertEqual(done.stdout, f"{count}\n")

    def processor_seconds(self, *words):
        before = os.times()
        self.expect(0, *words)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def test_takes_less_than_a_tenth_of_a_second(self):
        # Beside what any command takes, on a machine that may be slow and busy.
        words = ("solve", "digits", "--count", "--target", 69, 1, 2, 4, 9, 22, 25)
        solving = min(self.processor_seconds(*words) for _ in range(3))
        starting = min(self.processor_seconds("--version") for _ in range(3))
        self.assertLess(solving - starting, 0.1)

    def test_lists_every_solution_once(self):
        done = self.expect(0, "solve", "digits", "--list", "--target", 431, 3, 4, 6, 9, 11, 15)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 56)
        self.assertEqual(len(set(lines)), 56)
        for line in lines:
            self.assertTrue(line.endswith("=431;"), line)
            for a, op, b, c in re.findall(r"(\d+)([-+*/])(\d+)=(\d+)", line):
                value = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b),
                         "/": int(a) / int(b)}[op]
                self.assertEqual(value, int(c), line)

    def test_prints_one_solution(self):
        done = self.expect(0, "solve", "countdown", "--target", 14, 1, 5, 9)
        self.assertEqual(len(done.stdout.splitlines()), 1)

    def test_says_when_there_is_none(self):
        self.assertEqual(self.expect(1, "solve", "countdown", "--target", 9999, 1, 2).stdout, "")
        done = self.expect(0, "solve", "countdown", "--count", "--target", 9999, 1, 2)
        self.assertEqual(done.stdout, "0\n")

    def test_refuses_what_is_no_board(self):
        for words in (("chess", "--target", 1, 1, 2), ("digits", "--target", 1, 1),
                      ("digits", "--target", 1, 0, 2), ("digits", "--target", 1, *range(1, 8)),
                      ("digits", 1, 2), ("digits", "--target", "x", 1, 2)):
            done = self.expect(2, "solve", *words)
            self.assertNotEqual(done.stderr, "")
            self.assertEqual(done.stdout, "")


class UsageTest(CommandTest):
    def test_no_command_is_a_usage_error(self):
        self.assertIn("run", self.expect(2).stderr)

    def test_an_unknown_command_is_a_usage_error(self):
        self.assertIn("fly", self.expect(2, "fly").stderr)

    def test_an_unknown_option_is_a_usage_error(self):
        self.assertIn("--fast", self.expect(2, "run", "x.yaml", "--fast").stderr)

    def test_help_goes_to_standard_output(self):
        for words in (("--help",), ("run", "--help"), ("replay", "--help")):
            done = self.expect(0, *words)
            self.assertIn("--help", done.stdout)

    def test_version_names_revision_build_and_kernels(self):
        done = self.expect(0, "--version")
        self.assertRegex(done.stdout, r"^thresher \d+\.\d+\.\d+ \(\S+, \S+, .+\)\n")
        self.assertRegex(done.stdout, r"\nkernel sets cpu-fp32-v1 cpu-bf16dot-v1.* cpu-bf16amx-v1.*\n")
        self.assertRegex(done.stdout, r"\nvariants portable .*\(used: \w+\)\n")

    def test_ids_and_random_exclude_each_other(self):
        self.expect(2, "replay", self.folder, "train/0/0/0", "--random", 5)

    def test_trajectories_says_what_it_takes(self):
        self.assertIn("show ID", self.expect(2, "trajectories", self.folder, "delete").stderr)

    def test_eval_takes_only_keys_of_the_task(self):
        (self.folder / "config.json").write_text("{}")
        done = self.expect(2, "eval", self.folder, "--set", "rl.steps=3")
        self.assertIn("rl.steps=3", done.stderr)

    def test_eval_needs_enough_samples(self):
        self.assertIn("--samples", self.expect(2, "eval", self.folder, "--k", "1,16").stderr)


class KeygenTest(CommandTest):
    def test_makes_private_keys_once(self):
        keys = self.folder / "keys"
        made = json.loads(self.expect(0, "keygen", keys).stdout)
        self.assertEqual(list(made), ["broker", "actor", "learner", "tool"])
        self.assertEqual(keys.stat().st_mode & 0o777, 0o700)
        for role, public in made.items():
            file = keys / f"{role}.key"
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
            self.assertEqual(file.read_text().splitlines()[0], public)
        before = {file: file.read_text() for file in keys.iterdir()}
        self.assertIn("--force", self.expect(2, "keygen", keys, "--role", "actor").stderr)
        self.assertEqual({file: file.read_text() for file in keys.iterdir()}, before)
        again = json.loads(self.expect(0, "keygen", keys, "--role", "actor", "--force").stdout)
        self.assertNotEqual(again["actor"], made["actor"])
        changed = {file.name for file in keys.iterdir() if file.read_text() != before[file]}
        self.assertEqual(changed, {"actor.key"})

    def test_a_folder_open_to_others_is_refused(self):
        keys = self.folder / "keys"
        keys.mkdir()
        keys.chmod(0o755)
        self.assertIn("0700", self.expect(3, "keygen", keys).stderr)
        self.assertEqual(list(keys.iterdir()), [])

    def test_usage(self):
        self.expect(2, "keygen")
        self.expect(2, "keygen", self.folder / "keys", "--role", "king")


class CheckTest(CommandTest):
    def plan_of(self, *words):
        done = self.expect(0, "check", *words)
        lines = done.stdout.splitlines()
        return lines[:lines.index("# plan")], lines[lines.index("# plan"):]

    def test_prints_a_configuration_that_reads_back_equal(self):
        config = self.config("run: {name: t, seed: 7}\nrl: {steps: 3}\n")
        first, _ = self.plan_of(config, "--set", "rl.groups=16")
        again = self.config("\n".join(first), "resolved.yaml")
        second, _ = self.plan_of(again)
        self.assertEqual(first, second)
        self.assertTrue(any(re.match(r"\s+groups: 16", line) for line in first))

    def test_tells_the_plan(self):
        config = self.config("supervised: {steps: 10, batch: 4, warmup_steps: 0}\nrl: {steps: 5, groups: 2, group_size: 4}\n"
                             "eval: {items: 3, samples: 2}\nweights: {retain: 4}\n")
        text = "\n".join(self.plan_of(config)[1])
        self.assertIn("samples: 40 supervised, 40 train, 12 eval", text)
        self.assertIn("replay window: versions 0.12 to 0.15, 4 of 6 published", text)
        self.assertIn("retention deletes: 2 of 6 weight versions", text)
        for part in ("KV cache", "optimiser moments", "batches until durable", "largest trajectory",
                     "uniform numbers of train/0/0/0", "prompt eval/0/0"):
            self.assertIn(part, text)

    def test_seeds_change_prompts_and_numbers(self):
        config = self.config("run: {name: t}\n")
        shown = [[line for line in self.plan_of(config, "--set", f"run.seed={seed}")[1]
                  if line.startswith(("# prompt", "# uniform"))] for seed in (1, 2, 1)]
        self.assertEqual(shown[0], shown[2])
        for one, other in zip(shown[0], shown[1]):
            self.assertNotEqual(one, other)

    def test_accepts_every_shipped_file_and_tells_what_its_gpus_need(self):
        files = sorted((ROOT / "configs").glob("*.yaml"))
        self.assertGreaterEqual(len(files), 5)
        for file in files:
            done = self.expect(0, "check", file, env=without_gpus())
            on_gpus = "device: cuda" in file.read_text()
            self.assertEqual(done.stdout.count("on its GPU: about"), 2 if on_gpus else 0, file)
            self.assertEqual("# GPUs: none to compare with" in done.stdout, on_gpus, file)

    def test_changes_nothing(self):
        config = self.config("run: {name: t}\n")
        self.expect(0, "check", config, cwd=self.folder)
        self.assertEqual([p.name for p in self.folder.rglob("*")], ["config.yaml"])


class BadConfigurationTest(CommandTest):
    """Each is told by file, key, value and what is allowed; exit 2, for check and for run."""

    def refused(self, text, *parts, sets=()):
        config = self.config(text)
        words = [word for pair in sets for word in ("--set", pair)]
        for command in ("check", "run"):
            directory = ("--dir", self.folder / "run") if command == "run" else ()
            done = self.expect(2, command, config, *words, *directory)
            for part in parts:
                self.assertIn(part, done.stderr)
        self.assertFalse((self.folder / "run").exists())

    def test_unknown_key(self):
        self.refused("rl: {group_sise: 8}\n", "config.yaml", "rl.group_sise", "rl.group_size")

    def test_wrong_type(self):
        self.refused("rl: {steps: many}\n", "rl.steps", "many", "integer")

    def test_out_of_range(self):
        self.refused("rl: {groups: -1}\n", "rl.groups", "-1", "1 to 65536")

    def test_zero_actors(self):
        self.refused("run: {name: t}\n", "actors.count", "0", sets=("actors.count=0",))

    def test_group_size_that_does_not_fit_the_batch(self):
        self.refused("rl: {groups: 65536, group_size: 65536}\n", "rl.group_size")

    def test_devices_that_are_none_and_gpus_that_are_not_there(self):
        self.refused("actors: {device: gpu}\n", "actors.device", "gpu", "cuda:N")
        self.refused("engine: {kernel_set: cuda-bf16-sm90-v1}\n", "engine.kernel_set", "actors.device")
        config = self.config("actors: {device: cuda}\n")
        self.expect(0, "check", config, env=without_gpus())
        done = self.expect(2, "run", config, "--dir", self.folder / "run", env=without_gpus())
        self.assertRegex(done.stderr, r"^thresher: .*GPU.*\n$")
        self.assertFalse((self.folder / "run").exists())

    def test_missing_file(self):
        done = self.expect(2, "run", self.folder / "none.yaml")
        self.assertIn("none.yaml", done.stderr)

    def test_broken_yaml(self):
        self.refused("rl: {steps: 3\n", "config.yaml")

    def test_task_and_context_that_do_not_fit(self):
        self.refused("model: {context: 48}\n", "model.context", "48", "at least")

    def test_impossible_task(self):
        self.refused("task: {name: digits, numbers: 6, max_number: 25, use_all: true}\n",
                     "task.use_all")

    def test_trajectory_larger_than_a_message(self):
        self.refused("model: {context: 65536}\n", "broker.max_message_bytes", "65536",
                     sets=("broker.max_message_bytes=65536", "learner.micro_batch_tokens=65536"))

    def test_initial_model_that_is_none(self):
        self.refused("run: {name: t}\n", "model.init", "nowhere",
                     sets=(f"model.init={self.folder}/nowhere",))


class BadRunDirectoryTest(CommandTest):
    def test_commands_name_what_is_no_run_directory(self):
        for words in (("replay", self.folder, "train/0/0/0"), ("audit", self.folder),
                      ("status", self.folder), ("trajectories", self.folder),
                      ("eval", self.folder)):
            done = self.expect(2, *words)
            self.assertIn(str(self.folder), done.stderr, words)

    def test_run_refuses_a_folder_that_holds_something_else(self):
        (self.folder / "run").mkdir()
        (self.folder / "run" / "thesis.txt").write_text("mine")
        done = self.expect(2, "run", self.config("run: {name: t}\n"), "--dir", self.folder / "run")
        self.assertIn("thesis.txt", done.stderr)
        self.assertEqual((self.folder / "run" / "thesis.txt").read_text(), "mine")

    def test_run_refuses_a_half_written_run_directory(self):
        (self.folder / "run" / "journal").mkdir(parents=True)
        done = self.expect(2, "run", self.config("run: {name: t}\n"), "--dir", self.folder / "run")
        self.assertIn("half written", done.stderr)

    def test_run_refuses_a_damaged_manifest(self):
        run = self.folder / "run"
        run.mkdir()
        (run / "manifest.json").write_text("{}")
        done = self.expect(3, "run", self.config("run: {name: t}\n"), "--dir", run)
        self.assertIn("manifest.json", done.stderr)

    def test_status_of_an_address_where_nobody_answers(self):
        done = self.expect(3, "status", "http://127.0.0.1:1/?token=t")
        self.assertIn("127.0.0.1:1", done.stderr)


class DoctorTest(CommandTest):
    def test_looks_at_everything(self):
        done = call("doctor", cwd=self.folder)
        self.assertIn(done.returncode, (0, 1))
        for what in ("programs", "processor", "memory", "run folder", "unix socket path", "/dev/shm",
                     "loopback ports", "clock", "MPI", "Slurm", "GPU", "NCCL"):
            self.assertRegex(done.stdout, rf"(?m)^(ok     |note   |MISSING)  {what}: ")
        self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
