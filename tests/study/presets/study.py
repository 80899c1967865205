#!/usr/bin/env python3
"""Compares the presets of `objective.preset` with their controls. README.md says how and why.

    study.py run --program BUILD/launch/thresher-cli --out FOLDER   all runs that are missing; FOLDER/results.json
    study.py report RESULTS [--page docs/objectives.md] [--figures docs/figures]   table, verdicts, figures
"""

import argparse
import concurrent.futures
import json
import pathlib
import sys

import farm
import figures
import plan
import report


def run_presets(options):
    """Every missing run: presets one after another, then their controls of permuted rewards, so that what is finished can
    be reported whenever it is stopped."""
    work = farm.Farm(options.out, options.program)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:

        def make(runs):
            done = []
            for result in pool.map(work.make, runs):
                print(f"{result['name']:32} pass@1 {result['final']['value']:.3f}  "
                      f"{result['generated_tokens']:7} tokens  {result['wall_seconds']:6.1f} s", flush=True)
                done.append(result)
            return done

        collected = []

        def keep(runs):
            collected.extend(make(runs))
            write(options.out / "results.json", collected)
            return collected[-len(runs):]

        keep([plan.checkpoint_run(seed) for seed in (plan.TUNING_SEED, *options.seeds)])
        rate = plan.best_rate(keep(plan.trials(None)))
        keep([plan.supervised_run(seed, rate) for seed in options.seeds])
        rates = {}
        for preset in options.presets:
            rates[preset] = plan.best_rate(keep(plan.trials(preset)))
            keep([plan.preset_run(preset, seed, rates[preset]) for seed in options.seeds])
        for preset in options.presets:
            keep([plan.preset_run(preset, seed, rates[preset], permuted=True) for seed in options.seeds])
    return 0


def write(path, results):
    """One run a line."""
    lines = ",\n ".join(json.dumps(result, sort_keys=True) for result in results)
    path.write_text(f"[{lines}]\n")


def make_report(options):
    study = report.Study(json.loads(options.results.read_text()))
    text = study.table()
    if options.page:
        report.replace_section(options.page, text)
    else:
        print(text)
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
        (options.figures / "presets-curves.svg").write_text(figures.curves(study))
        (options.figures / "presets-gains.svg").write_text(figures.gains(study))
    return 0


def names(text):
    wanted = text.split(",")
    unknown = [name for name in wanted if name not in plan.PRESETS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; allowed: {', '.join(plan.PRESETS)}")
    return wanted


def numbers(text):
    wanted = [int(part) for part in text.split(",")]
    if plan.TUNING_SEED in wanted:
        raise argparse.ArgumentTypeError(f"{plan.TUNING_SEED} is for tuning")
    return wanted


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="all runs that are missing")
    run.add_argument("--program", type=pathlib.Path, required=True, help="the built thresher-cli")
    run.add_argument("--out", type=pathlib.Path, required=True, help="what is kept: results, checkpoints")
    run.add_argument("--presets", type=names, default=list(plan.PRESETS), help="names with commas")
    run.add_argument("--seeds", type=numbers, default=list(plan.JUDGING_SEEDS), help="judging seeds, with commas")
    run.add_argument("--jobs", type=int, default=1, help="runs at once; each takes about one core")
    run.set_defaults(do=run_presets)
    show = commands.add_parser("report", help="table and figures")
    show.add_argument("results", type=pathlib.Path, help="results.json of `run`")
    show.add_argument("--page", type=pathlib.Path, help="whose section `study` is written anew; else it is printed")
    show.add_argument("--figures", type=pathlib.Path, help="folder for the SVG files")
    show.set_defaults(do=make_report)
    options = parser.parse_args()
    return options.do(options)


if __name__ == "__main__":
    sys.exit(main())
