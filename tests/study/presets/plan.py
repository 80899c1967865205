"""What is compared: presets, what each is tuned over, and the configuration of every run.

A run is a `Run`: a name, and keys that it sets over base.yaml. Those of one seed branch off the same supervised
checkpoint, so whatever a preset gains it gains from the same policy as its controls.
"""

import dataclasses
import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE / "base.yaml"

PRESETS = ("grpo", "dr_grpo", "rloo", "reinforce_pp", "ppo", "dapo", "gspo", "cispo")
TUNING_SEED = 101
JUDGING_SEEDS = (1, 2, 3)
# The only thing that is tuned; every preset and the supervised control get these three trials.
LEARNING_RATES = ("2e-4", "4e-4", "8e-4")

STEPS, GROUPS, GROUP_SIZE = 60, 64, 8
# Generated training tokens that a run may spend, all rounds of sampling counted. 60 x 64 x 8 answers of some 14
# tokens are 430 thousand; a run over this is refused by the report.
TOKEN_BUDGET = 460_000
# Continued supervised training learns from as many tokens: traces have 14.1 of them on average, 64 to a step.
TOKENS_OF_A_SUPERVISED_STEP = 903
# Held-out items and samples of the judgement, the same for all; tuning looks at other draws.
JUDGED = {"items": 400, "samples": 8, "seed": 7}
TUNED = {"items": 200, "samples": 8, "seed": 11}

# What a preset needs to spend the same tokens, decided before the first run. DAPO asks for a second round whenever
# the first has too few groups whose rewards differ, which it nearly always has: half the groups a round. A critic
# learns from the rewards alone, from a standing start, in 60 steps: a rate like that of supervised training.
OF_PRESET = {
    "dapo": {"rl.groups": str(GROUPS // 2), "rl.max_rounds": "2"},
    "ppo": {"objective.critic_learning_rate": "1e-3"},
}
# Permuted rewards select nothing: no filter, and all groups of the step at once.
PERMUTED = {"rl.permute_rewards": "true", "rl.drop_zero_variance": "false", "rl.dynamic_sampling": "false",
            "rl.groups": str(GROUPS)}


@dataclasses.dataclass(frozen=True)
class Run:
    name: str                # also of its files
    arm: str                 # checkpoint, supervised, permuted or preset
    preset: str              # empty for arms that have none
    seed: int                # whose supervised checkpoint it begins with
    rate: str                # empty for the checkpoint
    keys: dict               # over base.yaml
    judge: dict              # how `thresher eval` measures its end
    start: str = ""          # the run whose last checkpoint it begins with

    def fingerprint(self):
        """Changes when anything does that its result depends on."""
        text = json.dumps([self.keys, self.judge, self.start, BASE.read_text()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def checkpoint_run(seed):
    judge = TUNED if seed == TUNING_SEED else JUDGED
    return Run(f"checkpoint-{seed}", "checkpoint", "", seed, "", {"run.seed": str(seed), "rl.steps": "0"}, judge)


def _rates(section, rate):
    return {f"{section}.learning_rate": rate, f"{section}.min_learning_rate": f"{float(rate) / 10:g}"}


def _tuning(seed):
    return seed == TUNING_SEED


def preset_run(preset, seed, rate, permuted=False):
    keys = {"run.seed": str(seed), "supervised.steps": "0", "objective.preset": preset, "rl.steps": str(STEPS),
            "rl.groups": str(GROUPS), "rl.group_size": str(GROUP_SIZE), **_rates("rl", rate),
            **OF_PRESET.get(preset, {})}
    if not _tuning(seed):
        keys["eval.every"] = "10"
    if permuted:
        keys |= PERMUTED
    arm = "permuted" if permuted else "preset"
    name = f"{preset}-{'permuted-' if permuted else ''}{seed}-{rate}"
    return Run(name, arm, preset, seed, rate, keys, TUNED if _tuning(seed) else JUDGED, f"checkpoint-{seed}")


def supervised_run(seed, rate):
    """More supervised training: traces that its checkpoint has not seen, for as many tokens as RL generates."""
    steps = TOKEN_BUDGET // TOKENS_OF_A_SUPERVISED_STEP
    keys = {"run.seed": str(seed + 1000003), "rl.steps": "0", "supervised.steps": str(steps),
            "supervised.warmup_steps": "5", **_rates("supervised", rate)}
    return Run(f"supervised-{seed}-{rate}", "supervised", "", seed, rate, keys,
               TUNED if _tuning(seed) else JUDGED, f"checkpoint-{seed}")


def trials(preset):
    """The tuning runs of a preset; of the supervised control with None."""
    if preset is None:
        return [supervised_run(TUNING_SEED, rate) for rate in LEARNING_RATES]
    return [preset_run(preset, TUNING_SEED, rate) for rate in LEARNING_RATES]


def best_rate(results):
    """Of finished trials: the rate of the highest held-out pass@1; of equal ones the lower rate."""
    return max(results, key=lambda r: (r["final"]["value"], -float(r["rate"])))["rate"]
