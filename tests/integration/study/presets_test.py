"""The study of presets: its runs, its statistics, and the page that it wrote."""

import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[3]
STUDY = ROOT / "tests/study/presets"
sys.path.insert(0, str(STUDY))

import farm  # noqa: E402
import figures  # noqa: E402
import plan  # noqa: E402
import report  # noqa: E402

# Plays `thresher run` and `thresher eval`: notes that it ran, writes the files that are read. The higher the learning
# rate, the better; permuted rewards teach nothing.
PROGRAM = """#!/usr/bin/env python3
import json, pathlib, sys
words = sys.argv[1:]
here = pathlib.Path(__file__).parent
keys = dict(w.split("=", 1) for i, w in enumerate(words) if i and words[i - 1] == "--set")
if words[0] == "run":
    with open(here / "started", "a") as log:
        log.write(" ".join(words) + "\\n")
    folder = pathlib.Path(words[words.index("--dir") + 1])
    assert not folder.exists(), "the folder of a run that was cut short"
    (folder / "checkpoints/step_000002").mkdir(parents=True)
    (folder / "weights").mkdir()
    if "model.init" in keys:
        assert pathlib.Path(keys["model.init"]).is_dir(), "no checkpoint to begin with"
    rl = keys.get("rl.steps") != "0"
    value = 0.2
    if rl and "rl.permute_rewards" not in keys:
        value += 200 * float(keys["rl.learning_rate"]) + 0.01 * int(keys["run.seed"])
    (folder / "value").write_text(str(value))
    with open(folder / "metrics.jsonl", "w") as metrics:
        for step in range(2):
            print(json.dumps({"step": step, "phase": "rl" if rl else "supervised", "samples": 10, "loss_tokens_mean": 14.5,
                              "trained_tokens": 100, "mismatched_tokens": 0}), file=metrics)
            if rl and "eval.every" in keys and not step:
                print(json.dumps({"eval": {"step": 1, "pass_at_1": 0.3}}), file=metrics)
    sys.exit(1 if (here / "fails").exists() else 0)
value = float((pathlib.Path(words[1]) / "value").read_text())
print(json.dumps({"pass_at": {"1": {"value": value, "low": value, "high": value}}}))
"""


def results_of(gains, control=0.2, tokens=1000):
    """A study of one preset, whose seeds gain so much over a control that stays where it began."""
    runs = []
    for seed, gain in enumerate(gains, 1):
        for arm, preset, value in (("checkpoint", "", control), ("supervised", "", control),
                                   ("permuted", "grpo", control), ("preset", "grpo", control + gain)):
            runs.append({"name": f"{arm}-{seed}", "arm": arm, "preset": preset, "seed": seed, "rate": "2e-4",
                         "final": {"value": value}, "generated_tokens": tokens, "trained_tokens": tokens, "curve": []})
    return runs


class RunsTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.program = self.folder / "thresher"
        self.program.write_text(PROGRAM)
        self.program.chmod(0o755)

    def study(self, *options):
        return subprocess.run([sys.executable, "-B", str(STUDY / "study.py"), "run", "--program", str(self.program),
                               "--out", str(self.folder / "out"), *options], capture_output=True, text=True, check=False)

    def started(self):
        return (self.folder / "started").read_text().splitlines()

    def results(self):
        return json.loads((self.folder / "out/results.json").read_text())

    def test_every_run_of_a_preset_once(self):
        done = self.study("--presets", "dapo", "--jobs", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        # 4 checkpoints; 3 trials and 3 seeds of the supervised control; 3 trials, 3 seeds and 3 permuted.
        self.assertEqual(len(self.started()), 4 + 6 + 9)
        self.assertEqual(len(self.results()), 4 + 6 + 9)
        self.assertEqual(self.study("--presets", "dapo").returncode, 0)
        self.assertEqual(len(self.started()), 4 + 6 + 9, "finished runs are not made again")

    def test_the_best_rate_of_the_tuning_seed_is_judged(self):
        self.study("--presets", "dapo")
        judged = [r for r in self.results() if r["preset"] == "dapo" and r["seed"] != plan.TUNING_SEED]
        self.assertEqual({r["rate"] for r in judged}, {"8e-4"})

    def test_a_run_that_was_cut_short_is_made_again(self):
        (self.folder / "fails").touch()
        self.assertNotEqual(self.study("--presets", "dapo").returncode, 0)
        (self.folder / "fails").unlink()
        self.assertEqual(self.study("--presets", "dapo").returncode, 0)
        self.assertEqual(len(self.results()), 4 + 6 + 9)

    def test_a_result_of_another_configuration_is_made_again(self):
        work = farm.Farm(self.folder / "out", self.program)
        first = plan.checkpoint_run(1)
        work.make(first)
        self.assertIsNotNone(work.result(first))
        changed = plan.dataclasses.replace(first, keys=first.keys | {"run.seed": "2"})
        self.assertIsNone(work.result(changed))

    def test_tokens_and_points_of_the_curve(self):
        self.study("--presets", "grpo")
        run = next(r for r in self.results() if r["arm"] == "preset" and r["seed"] == 1)
        self.assertEqual(run["generated_tokens"], 290)
        self.assertEqual(run["curve"], [{"tokens": 145, "pass_at_1": 0.3}])

    def test_only_checkpoints_are_kept(self):
        self.study("--presets", "grpo")
        kept = sorted(p.name for p in (self.folder / "out/runs").iterdir())
        self.assertEqual(kept, ["checkpoint-1", "checkpoint-101", "checkpoint-2", "checkpoint-3"])
        self.assertFalse((self.folder / "out/runs/checkpoint-1/weights").exists())

    def test_a_tuning_seed_is_not_judged(self):
        done = self.study("--seeds", "1,101")
        self.assertEqual(done.returncode, 2)
        self.assertIn("101 is for tuning", done.stderr)

    def test_an_unknown_preset_is_refused(self):
        done = self.study("--presets", "grpo,gpro")
        self.assertEqual(done.returncode, 2)
        self.assertIn("gpro; allowed: grpo", done.stderr)


class PlanTest(unittest.TestCase):
    def test_all_presets_have_equal_tuning(self):
        for preset in (None, *plan.PRESETS):
            self.assertEqual([run.rate for run in plan.trials(preset)], list(plan.LEARNING_RATES))
            self.assertEqual({run.seed for run in plan.trials(preset)}, {plan.TUNING_SEED})

    def test_all_presets_may_sample_equally_often(self):
        for preset in plan.PRESETS:
            for permuted in (False, True):
                keys = plan.preset_run(preset, 1, "2e-4", permuted).keys
                rounds = 1 if keys.get("rl.dynamic_sampling") == "false" else int(keys.get("rl.max_rounds", 1))
                self.assertEqual(int(keys["rl.steps"]) * int(keys["rl.groups"]) * rounds, plan.STEPS * plan.GROUPS, preset)

    def test_the_lower_of_equally_good_rates(self):
        trials = [{"rate": rate, "final": {"value": value}} for rate, value in (("8e-4", 0.3), ("2e-4", 0.3), ("4e-4", 0.2))]
        self.assertEqual(plan.best_rate(trials), "2e-4")


class ReportTest(unittest.TestCase):
    def test_an_interval_by_hand(self):
        found = report.interval([0.1, 0.2, 0.3])
        self.assertAlmostEqual(found.mean, 0.2)
        self.assertAlmostEqual(found.high - found.mean, 4.303 * 0.1 / math.sqrt(3))

    def test_what_holds_by_the_mean_and_by_the_interval(self):
        self.assertEqual(report.Study(results_of([0.2, 0.21, 0.2])).holds("grpo"), (True, True))
        self.assertEqual(report.Study(results_of([0.05, 0.15, 0.3])).holds("grpo"), (True, False))
        self.assertEqual(report.Study(results_of([0.09, 0.09, 0.1])).holds("grpo"), (False, False))

    def test_a_preset_without_all_seeds_is_left_out(self):
        study = report.Study(results_of([0.2, 0.2])[:-1])
        self.assertEqual(study.presets, [])
        self.assertIn("Not run yet: `grpo`", study.table())

    def test_a_control_that_was_not_run_is_said(self):
        study = report.Study([r for r in results_of([0.2, 0.2]) if r["arm"] != "permuted"])
        self.assertEqual(study.holds("grpo"), (False, False))
        self.assertEqual(study.row("grpo")[3], "not run")
        self.assertIn("grpo", figures.curves(study))
        self.assertIn("grpo", figures.gains(study))

    def test_more_tokens_than_the_budget_do_not_count(self):
        runs = results_of([0.2, 0.2])
        over = runs[3]
        over["generated_tokens"] = plan.TOKEN_BUDGET + 1
        with self.assertRaisesRegex(ValueError, "preset-1 spent 460001 tokens, and has no round within 460000"):
            report.Study(runs).finals("preset", "grpo")
        over["curve"] = [{"tokens": 459000, "pass_at_1": 0.3}, {"tokens": 460001, "pass_at_1": 0.9}]
        self.assertEqual(report.Study(runs).finals("preset", "grpo"), [0.3, 0.4])
        self.assertIn("`preset-1`", report.Study(runs).table())

    def test_only_the_section_is_replaced(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
            report.replace_section(page, "new")
            self.assertEqual(page.read_text(), f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n")


class PublishedTest(unittest.TestCase):
    """docs/ says what results.json says."""

    @classmethod
    def setUpClass(cls):
        cls.study = report.Study(json.loads((STUDY / "results.json").read_text()))

    def test_the_page(self):
        page = (ROOT / "docs/objectives.md").read_text()
        section = page.split(report.BEGIN)[1].split(report.END)[0]
        self.assertEqual(section.strip(), self.study.table())

    def test_the_figures(self):
        for name, made in (("presets-curves", figures.curves(self.study)), ("presets-gains", figures.gains(self.study))):
            self.assertEqual((ROOT / f"docs/figures/{name}.svg").read_text(), made, name)
            xml.etree.ElementTree.fromstring(made)

    def test_no_run_saw_other_logprobs_than_were_recorded(self):
        self.assertEqual({run["mismatched_tokens"] for run in self.study.runs.values()}, {0})

    def test_results_are_of_the_study_as_it_stands(self):
        made = {run.name: run.fingerprint() for run in self.expected()}
        for run in self.study.runs.values():
            self.assertEqual(run["fingerprint"], made[run["name"]], run["name"])

    def expected(self):
        seeds = self.study.seeds
        yield from (plan.checkpoint_run(seed) for seed in (plan.TUNING_SEED, *seeds))
        for rate in plan.LEARNING_RATES:
            for seed in (plan.TUNING_SEED, *seeds):
                yield plan.supervised_run(seed, rate)
                for preset in plan.PRESETS:
                    yield plan.preset_run(preset, seed, rate)
                    yield plan.preset_run(preset, seed, rate, permuted=True)


if __name__ == "__main__":
    unittest.main()
