"""What results.json says: means, intervals, differences to the controls, and the section of the page.

Intervals are Student's t over judging seeds. A seed gives its own supervised checkpoint, task stream and samples, and
it is what a reader would repeat the study with; the 3,200 answers behind one pass@1 share all three, so an interval over
them would tell how well one checkpoint was measured, not how well a preset works. Differences are taken seed by
seed, between runs that begin with the same checkpoint and are judged on the same items with the same random numbers.
"""

import dataclasses
import math
import statistics

import plan

AIM = 0.10
CONTROLS = ("permuted", "supervised")
# Student's t, 97.5 %, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"


@dataclasses.dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float

    def __str__(self):
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(values):
    """Mean with its 95 % t-interval; of a single value, no interval (NaN)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = T[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def ending(run):
    """(tokens, pass@1) that the run counts with: of its end, or if it spent more than the budget (answers have become
    longer), of its last round within it."""
    spent = run["generated_tokens"] or run["trained_tokens"]
    if run["generated_tokens"] <= plan.TOKEN_BUDGET:
        return spent, run["final"]["value"]
    within = [p for p in run["curve"] if p["tokens"] <= plan.TOKEN_BUDGET]
    if not within:
        raise ValueError(f"{run['name']} spent {spent} tokens, and has no round within {plan.TOKEN_BUDGET}")
    return within[-1]["tokens"], within[-1]["pass_at_1"]


class Study:
    """results.json by arm. Presets in the order of plan.PRESETS, those that were judged alone; a control of permuted
    rewards that was not run is None."""

    def __init__(self, results):
        self.runs = {(r["arm"], r["preset"], r["seed"], r["rate"]): r for r in results}
        self.seeds = sorted({r["seed"] for r in results} - {plan.TUNING_SEED})
        self.presets = [p for p in plan.PRESETS if self.judged("preset", p)]
        self.over = [r["name"] for r in results if r["generated_tokens"] > plan.TOKEN_BUDGET]

    def judged(self, arm, preset=""):
        """The runs of an arm on judging seeds, by seed; None unless every seed has one."""
        found = {seed: run for (a, p, seed, _), run in self.runs.items()
                 if (a, p) == (arm, preset) and seed in self.seeds}
        return [found[seed] for seed in self.seeds] if len(found) == len(self.seeds) else None

    def tuned(self, preset):
        """rate -> pass@1 of the trials on the tuning seed; of the supervised control with ""."""
        arm = "preset" if preset else "supervised"
        return {rate: run["final"]["value"] for (a, p, seed, rate), run in self.runs.items()
                if (a, p, seed) == (arm, preset, plan.TUNING_SEED)}

    def finals(self, arm, preset=""):
        runs = self.judged(arm, preset)
        return runs and [ending(run)[1] for run in runs]

    def gain(self, preset, arm):
        """Of the preset over a control (or over the checkpoint), seed by seed."""
        control = self.finals(arm, preset if arm == "permuted" else "")
        return control and [a - b for a, b in zip(self.finals("preset", preset), control, strict=True)]

    def holds(self, preset):
        """Whether the preset is at least AIM above both controls, by the means; and by the ends of the intervals."""
        if not self.judged("permuted", preset):
            return False, False
        gains = [interval(self.gain(preset, arm)) for arm in CONTROLS]
        return all(g.mean >= AIM for g in gains), all(g.low >= AIM for g in gains)

    def row(self, preset):
        runs = self.judged("preset", preset)
        tokens = [ending(run)[0] for run in runs]
        mean, whole = self.holds(preset)
        verdict = "yes" if whole else "by the mean" if mean else "no"
        shown = [self.finals("preset", preset), self.finals("permuted", preset), self.gain(preset, "permuted"),
                 self.gain(preset, "supervised")]
        return [f"`{preset}`", runs[0]["rate"], *(str(interval(v)) if v else "not run" for v in shown),
                f"{statistics.fmean(tokens) / 1000:.0f} k", verdict if all(shown) else "not run"]

    def table(self):
        """The section, without its markers."""
        head = ["preset", "rate", "pass@1", "permuted rewards", "over permuted", "over supervised", "tokens",
                f"{AIM:.2f} above both"]
        judged, tuned = plan.JUDGED, plan.TUNED
        lines = [f"pass@1 on {judged['items']} held-out items x {judged['samples']} samples, the same for every run; "
                 f"mean of seeds {', '.join(map(str, self.seeds))} and its 95 % t-interval. Supervised checkpoint "
                 f"{interval(self.finals('checkpoint'))}; more supervised training "
                 f"{interval(self.finals('supervised'))} (rate {self.judged('supervised')[0]['rate']}).", ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(self.row(preset)) + " |" for preset in self.presets]
        missing = [f"`{preset}`" for preset in plan.PRESETS if preset not in self.presets]
        if missing:
            lines += ["", f"Not run yet: {', '.join(missing)}."]
        if self.over:
            lines += ["", f"More than the budget of {plan.TOKEN_BUDGET:,} tokens, so counted with the last round within it: "
                          f"{', '.join(f'`{name}`' for name in self.over)}."]
        lines += ["", f"What was tuned, on seed {plan.TUNING_SEED} ({tuned['items']} other draws of held-out items x "
                      f"{tuned['samples']}): pass@1 by learning rate.", ""]
        lines += ["| | " + " | ".join(plan.LEARNING_RATES) + " |", "|---|" + "---|" * len(plan.LEARNING_RATES)]
        for preset in [*self.presets, ""]:
            tried = self.tuned(preset)
            cells = [f"{tried[rate]:.3f}" if rate in tried else "" for rate in plan.LEARNING_RATES]
            lines.append(f"| {f'`{preset}`' if preset else 'supervised'} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def replace_section(page, text):
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
