"""track.py: every line of metrics.jsonl reaches the tracker once, whatever ends it; what is wrong is told in a line."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
TRACK = HERE.parents[2] / "launch" / "bridges" / "track.py"

CONFIG = """# Every key of the run with its value.

run:
  # of the run (text: any)
  name: "a \\"quoted\\" name"
  # of all (integer: 0 to 18446744073709551615)
  seed: 18446744073709551615

rl:
  learning_rate: 1e-05
  dynamic_sampling: false

# control experiments (text: none, all)
controls: "none"
"""


def step_line(step):
    return {"time": 1000.5 + step, "step": step, "phase": "rl", "samples": 8, "state_hash": "00ff",
            "outcomes": {"scored": 8}, "learner": {"loss": step / 4, "gradient_norm": None}}


def round_line(number, step):
    return {"time": 2000.5, "eval": {"round": number, "step": step, "label": "step", "pass_at_1": 0.5}}


class TrackTest(unittest.TestCase):
    def setUp(self):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="track-"))
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.modules = self.base / "modules"
        for name in ("wandb", "mlflow", "trackio"):
            (self.modules / name).mkdir(parents=True)
            shutil.copy(HERE / "fake_trackers.py", self.modules / name / "__init__.py")
        (self.modules / "mlflow" / "entities.py").write_text("from mlflow import Metric, Param\n")
        self.run_folder = self.base / "the run"
        self.run_folder.mkdir()
        (self.run_folder / "manifest.json").write_text('{"run_id": "0123"}')
        (self.run_folder / "config.yaml").write_text(CONFIG)
        self.calls_file = self.base / "calls"

    def append(self, *lines, end="\n"):
        with (self.run_folder / "metrics.jsonl").open("a") as file:
            for line in lines:
                file.write((line if isinstance(line, str) else json.dumps(line)) + end)

    def finish_run(self):
        (self.run_folder / "summary.json").write_text("{}")

    def start(self, *words, fail_at=0, modules=True):
        environment = {**os.environ, "CALLS": str(self.calls_file), "FAIL_AT": str(fail_at), "PYTHONDONTWRITEBYTECODE": "1",
                       "PYTHONPATH": str(self.modules) if modules else ""}
        for name in ("TRACKIO_SPACE_ID", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        # Not what is installed: -S leaves site-packages out.
        process = subprocess.Popen([sys.executable, "-S", str(TRACK), *map(str, words)], env=environment, text=True,
                                   cwd=self.base, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        """Nothing outlives its test, also one that failed."""
        if process.poll() is None:
            process.kill()
            process.communicate()

    def track(self, *words, code=0, **arguments):
        process = self.start(self.run_folder, *words, **arguments)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, err)
        self.assertEqual(out, "")
        return err

    def refused(self, *words, says, folder=None, **arguments):
        process = self.start(folder or self.run_folder, *words, **arguments)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 2, err)
        for text in says:
            self.assertIn(text, err)
        self.assertNotIn("Traceback", err)

    def calls(self, name=None):
        if not self.calls_file.exists():
            return []
        calls = [json.loads(line) for line in self.calls_file.read_text().splitlines()]
        return [c for c in calls if name in (None, c["call"])]

    def wait_for(self, condition, what):
        end = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), end, f"waited in vain for {what}")
            time.sleep(0.01)

    def sent_steps(self):
        """The steps that Trackio was told, in order."""
        return [c["step"] for c in self.calls("log")]

    # ---- what is sent

    def test_wandb_gets_numbers_under_their_names_with_the_step_as_axis(self):
        self.append(step_line(4), step_line(5), round_line(0, 4))
        self.finish_run()
        self.track("--to", "wandb", "--project", "p", "--offline")
        init = self.calls("init")[0]
        self.assertEqual({k: init[k] for k in ("project", "name", "id", "resume", "mode")},
                         {"project": "p", "name": "the run", "id": "0123", "resume": "allow", "mode": "offline"})
        self.assertEqual(init["dir"], str(self.run_folder / "tracking"))
        self.assertEqual(init["config"], {"run.name": 'a "quoted" name', "run.seed": 18446744073709551615,
                                          "rl.learning_rate": 1e-5, "rl.dynamic_sampling": False, "controls": "none"})
        self.assertIn({"call": "define_metric", "name": "*", "step_metric": "step"}, self.calls())
        self.assertEqual([c["metrics"] for c in self.calls("log")], [
            {"step": 4, "time": 1004.5, "outcomes/scored": 8, "learner/loss": 1.0, "run/samples": 8},
            {"step": 5, "time": 1005.5, "outcomes/scored": 8, "learner/loss": 1.25, "run/samples": 8},
            {"step": 4, "time": 2000.5, "eval/round": 0, "eval/pass_at_1": 0.5}])
        self.assertEqual(self.calls()[-1], {"call": "finish", "exit_code": 0})

    def test_mlflow_gets_parameters_and_numbers_with_their_times(self):
        self.append(step_line(1), round_line(0, 0))
        self.finish_run()
        self.track("--to", "mlflow", "--name", "n", "--offline")
        self.assertEqual(self.calls("set_tracking_uri")[0]["uri"],
                         f"sqlite:///{self.run_folder}/tracking/mlflow.db")
        self.assertEqual(self.calls("create_experiment")[0]["name"], "thresher")
        self.assertEqual(self.calls("create_run")[0]["run_name"], "n")
        params, step, evaluation = self.calls("log_batch")
        self.assertIn(["rl.learning_rate", "1e-05"], params["params"])
        self.assertEqual(step["metrics"], [["outcomes/scored", 8.0, 1001500, 1], ["learner/loss", 0.25, 1001500, 1],
                                           ["run/samples", 8.0, 1001500, 1]])
        self.assertEqual(evaluation["metrics"][1], ["eval/pass_at_1", 0.5, 2000500, 0])
        self.assertEqual(self.calls()[-1], {"call": "set_terminated", "run_id": "f00"})

    def test_trackio_gets_numbers_by_step(self):
        self.append(step_line(2))
        self.finish_run()
        self.track("--to", "trackio")
        self.assertEqual(self.calls("init")[0]["resume"], "allow")
        self.assertEqual(self.calls("log"), [{"call": "log", "step": 2, "metrics": {
            "outcomes/scored": 8, "learner/loss": 0.5, "run/samples": 8}}])

    # ---- once

    def test_it_follows_until_the_run_has_finished(self):
        process = self.start(self.run_folder, "--to", "trackio")
        self.wait_for(lambda: self.calls("init"), "the tracker")
        for step in range(3):
            self.append(step_line(step))
            self.wait_for(lambda: len(self.sent_steps()) == step + 1, f"step {step}")
        self.append(step_line(3))
        self.finish_run()
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(self.sent_steps(), [0, 1, 2, 3])
        self.assertEqual(self.calls()[-1]["call"], "finish")

    def test_a_line_that_is_being_written_is_sent_when_it_is_whole(self):
        self.append(step_line(0))
        text = json.dumps(step_line(1))
        self.append(text[:25], end="")
        self.track("--to", "trackio", "--once")
        self.assertEqual(self.sent_steps(), [0])
        # The broker that came back has cut it off and written another one.
        path = self.run_folder / "metrics.jsonl"
        os.truncate(path, path.stat().st_size - 25)
        self.append(text)
        self.track("--to", "trackio", "--once")
        self.assertEqual(self.sent_steps(), [0, 1])

    def test_a_second_start_sends_nothing_twice(self):
        self.append(*map(step_line, range(5)))
        self.track("--to", "trackio", "--once")
        self.track("--to", "trackio", "--once")
        self.append(step_line(5))
        self.finish_run()
        self.track("--to", "trackio")
        self.assertEqual(self.sent_steps(), list(range(6)))
        starts = len(self.calls("init"))
        self.assertIn("everything", self.track("--to", "trackio"))
        self.assertEqual(len(self.calls("init")), starts)

    def test_a_tracker_that_fails_is_told_and_the_next_start_goes_on(self):
        self.append(*map(step_line, range(6)))
        self.finish_run()
        err = self.track("--to", "trackio", code=3, fail_at=4)
        self.assertIn("ConnectionError: the tracker is gone", err)
        self.assertEqual(self.sent_steps(), [0, 1, 2])
        self.track("--to", "trackio")
        self.assertEqual(self.sent_steps(), list(range(6)))

    def test_mlflow_goes_on_in_its_run(self):
        self.append(step_line(0))
        self.track("--to", "mlflow", "--once")
        self.append(step_line(1))
        self.track("--to", "mlflow", "--once")
        self.assertEqual(len(self.calls("create_run")), 1)
        steps = [c["metrics"][0][3] for c in self.calls("log_batch") if "metrics" in c]
        self.assertEqual(steps, [0, 1])
        self.assertFalse(self.calls("set_terminated"))

    def test_a_signal_stops_it_and_it_can_go_on(self):
        self.append(step_line(0))
        for number, steps in ((signal.SIGTERM, [0]), (signal.SIGINT, [0, 1])):
            process = self.start(self.run_folder, "--to", "trackio")
            self.wait_for(lambda: self.sent_steps() == steps, "what is there")
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 75, err)
            self.assertEqual(self.calls()[-1]["call"], "finish")
            self.append(step_line(len(steps)))

    def test_one_at_a_time(self):
        process = self.start(self.run_folder, "--to", "trackio")
        self.wait_for(lambda: self.calls("init"), "the tracker")
        self.refused("--to", "trackio", says=["another process sends this run to trackio"])
        process.terminate()
        process.communicate(timeout=60)

    def test_trackers_do_not_disturb_each_other(self):
        self.append(step_line(0))
        for tracker in ("wandb", "mlflow", "trackio"):
            self.track("--to", tracker, "--once")
        self.assertEqual(len(self.calls("log")), 2)
        self.assertEqual(len(self.calls("log_batch")), 2)

    def test_lines_that_are_none_are_left_out_and_told(self):
        self.append("damage", "[]", '{"time": 1}', step_line(7))
        self.assertEqual(self.track("--to", "trackio", "--once").count("left out"), 3)
        self.assertEqual(self.sent_steps(), [7])

    # ---- what is wrong

    def test_no_such_run(self):
        self.refused("--to", "wandb", "--once", folder=self.base / "nowhere", says=["nowhere is no run", "manifest.json"])

    def test_a_missing_package_is_named_with_its_remedy(self):
        for name in ("wandb", "mlflow", "trackio"):
            self.refused("--to", name, "--once", modules=False,
                         says=[f"the Python package '{name}' is not there", f"pip install {name}"])

    def test_an_unknown_tracker_or_option(self):
        self.refused("--to", "paper", says=["invalid choice: 'paper'", "wandb"])
        self.refused("--to", "wandb", "--projct", "p", says=["--projct"])

    def test_another_project_than_before(self):
        self.track("--to", "trackio", "--project", "one", "--once")
        self.refused("--to", "trackio", "--project", "two", says=["project is 'one'", "'two'", "trackio.json"])
        self.track("--to", "trackio", "--once")
        self.assertEqual({c["project"] for c in self.calls("init")}, {"one"})

    def test_a_state_that_cannot_be_read(self):
        self.track("--to", "trackio", "--once")
        state = self.run_folder / "tracking" / "trackio.json"
        for text, says in (("{", "not a JSON object"), ('{"sent": 1}', "unknown key 'sent'"),
                           ('{"sent_bytes": "1"}', "sent_bytes: '1'; allowed: int")):
            state.write_text(text)
            self.refused("--to", "trackio", says=[str(state), says])

    def test_a_metrics_file_that_is_another_one(self):
        self.append(step_line(0), step_line(1))
        self.track("--to", "trackio", "--once")
        (self.run_folder / "metrics.jsonl").write_text("")
        self.refused("--to", "trackio", "--once", says=["metrics.jsonl has 0 bytes", "remove"])

    def test_a_configuration_that_is_none(self):
        (self.run_folder / "config.yaml").write_text("run:\n  - a list\n")
        self.refused("--to", "trackio", says=["config.yaml:2", "- a list"])


if __name__ == "__main__":
    unittest.main()
