"""The numbers that a run writes: each is on docs/metrics.md, each line is written once whoever dies, and the event
files say the same."""

import collections
import importlib.util
import json
import pathlib
import re
import statistics
import struct
import sys
import unittest

import event_files
import farm

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "launch" / "bridges"))
import track  # noqa: E402

PAGE = (ROOT / "docs" / "metrics.md").read_text()


def page_names(head):
    """The names in the first column of the page's tables with this head; `_x` behind a name stands for its end."""
    names, inside = [], False
    for line in PAGE.splitlines():
        inside = line.startswith(f"| {head} |") or (inside and line.startswith("|"))
        if inside:
            names += re.findall(r"`([^`]+)`", line.split("|")[1])
    return names


def pattern(name):
    return re.compile(re.escape(name).replace(r"\*", "[a-z0-9_]+"))


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def as_float(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


class Metrics(farm.FarmTest):
    OVERRIDES = ("objective.kl=0.01", "objective.kl_in=reward", "objective.kl_estimator=k1", "objective.advantage=gae", "objective.critic=own", "objective.value_clip=0.2",
                 "eval.every=3", "eval.every_items=4")

    def lines(self, run):
        return run.lines("metrics.jsonl")

    def test_the_page_names_what_is_written_and_nothing_else(self):
        patterns = {name: pattern(name) for name in page_names("name | unit | meaning")}
        met = set()
        examples = self.scratch / "examples.jsonl"
        examples.write_text("".join(f'{{"prompt": "{i} 1={i + 1}:", "completion": "{i}+1={i + 1};"}}\n' for i in range(9)))
        mixed = self.run_farm("mixed", "supervised.source=jsonl", f"supervised.file={examples}", "supervised.eval_share=0.3",
                              "supervised.eval_every=10", "objective.supervised_coefficient=0.1")
        steps = self.run_farm("steps", "objective.step_rewards=process", "objective.advantage=group", "objective.critic=none",
                              "objective.value_clip=0", "objective.kl=0")
        for line in self.lines(self.reference()) + self.lines(mixed) + self.lines(steps):
            for name, value in leaves(line):
                # The most exact one: `eval.pass_at_*_low` before `eval.pass_at_*`.
                fitting = sorted((p for p in patterns if patterns[p].fullmatch(name)), key=len)
                self.assertTrue(fitting, f"{name} = {value} is not on docs/metrics.md")
                met.add(fitting[-1])
        self.assertEqual(sorted(set(patterns) - met), [], "on docs/metrics.md, and not written")

    def test_units_hold(self):
        shares = [line.split("`")[1] for line in PAGE.splitlines() if re.match(r"\| `[^|]+\| 0 to 1 \|", line)]
        self.assertGreater(len(shares), 5)
        seen = 0
        for line in self.lines(self.reference()):
            for name, value in leaves(line):
                if any(pattern(share).fullmatch(name) for share in shares):
                    seen += 1
                    self.assertTrue(0 <= value <= 1, f"{name} = {value}")
        self.assertGreater(seen, 50)

    def test_figures_agree_with_each_other(self):
        run = self.reference()
        for line in run.metrics():
            self.assertEqual(line["rollout"]["samples"], line["samples"])
            self.assertEqual(line["trained"]["samples"], line["batch"])
            self.assertAlmostEqual(line["rollout"]["reward_mean"], line["reward_mean"], 12)
            self.assertAlmostEqual(line["rollout"]["length_mean"], line["loss_tokens_mean"], 9)
            self.assertAlmostEqual(line["trained"]["length_mean"] * line["batch"], line["trained_tokens"], 6)
            farm_line = line["farm"]
            self.assertEqual(farm_line["samples_issued"], sum(farm_line[f"samples_{part}"] for part in
                             ("trained", "evaluated", "dropped", "held")))
            if line["phase"] == "rl":
                self.assertAlmostEqual(line["trained"]["reward_mean"], line["learner"]["reward"], 9)
                self.assertEqual(line["groups"]["count"], 8)
                self.assertLessEqual(line["groups"]["solved_all"] + line["groups"]["solved_none"], 8)
                self.assertEqual(line["rollout"]["staleness_max"], 0)
        summary = {e["round"]: e["pass_at"]["1"]["value"] for e in run.summary()["evals"]}
        written = {group["round"]: group["pass_at_1"] for line in run.evaluations()
                   for key, group in line.items() if key != "time"}
        self.assertEqual(written, summary)

    def test_figures_are_those_of_the_trajectories(self):
        """Lengths, rewards and truncation, counted again from the stored records."""
        run = self.run_farm("short", "sampling.max_new_tokens=8")
        steps = collections.defaultdict(list)
        exported = self.command("trajectories", run.folder, "export", "--stream", "train")
        for record in map(json.loads, exported.out.splitlines()):
            steps[30 + int(record["id"].split("/")[2]) // 8].append(record)
        self.assertEqual(sorted(steps), list(range(30, 36)))
        truncated = 0
        for line in run.metrics()[30:]:
            records, rollout = steps[line["step"]], line["rollout"]
            lengths = [sum(s["end"] - s["begin"] for s in r["segments"] if s["in_loss"]) for r in records]
            self.assertEqual(rollout["samples"], len(records))
            self.assertAlmostEqual(rollout["length_mean"], statistics.fmean(lengths), 9)
            self.assertAlmostEqual(rollout["length_std"], statistics.pstdev(lengths), 9)
            self.assertEqual([rollout["length_min"], rollout["length_max"]], [min(lengths), max(lengths)])
            rewards = [r["outcome"]["reward"] for r in records]
            self.assertAlmostEqual(rollout["reward_mean"], statistics.fmean(rewards), 9)
            self.assertAlmostEqual(rollout["reward_std"], statistics.pstdev(rewards), 9)
            cut = sum(r["finish"] == "length" for r in records)
            self.assertAlmostEqual(rollout["truncated_share"], cut / len(records), 9)
            truncated += cut
        self.assertGreater(truncated, 0, "nothing was cut: little is tested")

    def assert_events_are_the_lines(self, run):
        lines = self.lines(run)
        expected = [(line["time"], track.step_of(line),
                     {name: as_float(value) for name, value in track.numbers_of(line).items()}) for line in lines]
        self.assertEqual(event_files.events(run.folder / "tensorboard"), expected)
        steps = [line["step"] for line in run.metrics()]
        self.assertEqual(steps, list(range(36)))
        self.assertEqual(sorted(g["round"] for l in run.evaluations() for k, g in l.items() if k != "time"),
                         [0, 1, 2])

    def test_event_files_say_the_same(self):
        run = self.reference()
        self.assert_events_are_the_lines(run)
        if importlib.util.find_spec("tensorboard") is None:
            return
        from tensorboard.backend.event_processing import event_accumulator
        accumulator = event_accumulator.EventAccumulator(str(run.folder / "tensorboard"), {"scalars": 0})
        accumulator.Reload()
        loss = [(e.step, e.value) for e in accumulator.Scalars("learner/loss")]
        self.assertEqual(loss, [(l["step"], as_float(l["learner"]["loss"])) for l in run.metrics()])

    def test_a_killed_broker_writes_no_line_twice_and_loses_none(self):
        for fault in ("broker:kill@committed=12", "broker:kill@evaluated=2", "broker:kill@journal_before_write=40"):
            run = self.run_farm(fault.split("@")[1].replace("=", "-"), faults=fault)
            self.assertEqual(run.hash(), self.reference().hash())
            self.assertGreater(run.summary()["faults"]["broker_starts"], 1, fault)
            self.assert_events_are_the_lines(run)

    def test_prometheus_has_the_newest_numbers_under_names_of_the_page(self):
        patterns = [pattern(f"step_{n}") for n in (track_name(n) for n in page_names("name | unit | meaning"))]
        patterns += [pattern(track_name(n)) for n in page_names("name | unit | meaning") if n.startswith("eval")]
        patterns += [pattern(n + "_total") for n in page_names("counter | meaning")]
        patterns += [pattern(n) for n in page_names("gauge | meaning")]
        patterns += [re.compile(r"ledger_[a-z]+_island\d+_(issued|trained|evaluated|dropped|held)"),
                     re.compile("step_number")]
        launched = self.start("prometheus", "rl.steps=20")
        seen = {}

        def look():
            try:
                code, text = launched.run.http("/metrics")
            except (OSError, ValueError):
                return not launched.alive()
            self.assertEqual(code, 200)
            seen.update(re.findall(r"^thresher_(\S+) (\S+)$", text, re.MULTILINE))
            return not launched.alive()

        self.wait_until(look, "the end of the run")
        launched.finish()
        for name in seen:
            self.assertTrue(any(p.fullmatch(name) for p in patterns), f"{name} is not on docs/metrics.md")
        for name in ("step_learner_loss", "step_rollout_reward_mean", "step_number", "eval_end_pass_at_1",
                     "steps_committed_total"):
            self.assertIn(name, seen)

    def test_every_counter_of_the_broker_is_on_the_page(self):
        source = "\n".join(path.read_text() for path in sorted((ROOT / "broker").glob("*.cc")))
        for call, head in (("Count", "counter | meaning"), ("Set", "gauge | meaning")):
            names = set(re.findall(rf'\b{call}\(\s*"([a-z_0-9]+)"\s*[,)]', source))
            self.assertGreater(len(names), 15)
            patterns = [pattern(name) for name in page_names(head)]
            for name in names:
                self.assertTrue(any(p.fullmatch(name) for p in patterns), f"{call} {name} is not on docs/metrics.md")


def track_name(name):
    """A name of the page as /metrics has it."""
    return (name if "." in name else f"run.{name}").replace(".", "_")


if __name__ == "__main__":
    unittest.main()
