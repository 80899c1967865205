"""Medians, spreads, intervals, and the tables that people read."""

import random
import statistics

FIGURES = ("prefill_tokens_per_s", "decode_tokens_per_s", "first_token_s", "peak_mib")


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def interval(values, draws=10000):
    """Median and its 95 % bootstrap interval."""
    random.seed(1)
    medians = sorted(statistics.median(random.choices(values, k=len(values)))
                     for _ in range(draws))
    return {"median": statistics.median(values), "low": medians[int(0.025 * draws)],
            "high": medians[int(0.975 * draws) - 1]}


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def table(headings, rows):
    rows = [headings, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(headings))]
    return "\n".join("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)


def wide(figure):
    """The spread as a percentage of the median, to both sides."""
    low = 100 * (figure["min"] / figure["median"] - 1)
    return f"{low:+.0f}/{100 * (figure['max'] / figure['median'] - 1):+.0f}%"


def percent(value):
    return "" if value is None else f"{100 * value:.0f}%"


def cell_text(cell):
    rows = []
    for name, system in cell["systems"].items():
        rows.append([name, number(system["prefill_tokens_per_s"]["median"]),
                     percent(system.get("prefill_arithmetic_fraction")),
                     number(system["decode_tokens_per_s"]["median"]),
                     wide(system["decode_tokens_per_s"]),
                     percent(system.get("decode_arithmetic_fraction")),
                     percent(system.get("decode_bandwidth_fraction")),
                     number(1000 * system["first_token_s"]["median"]),
                     number(system["peak_mib"]["median"])])
    text = [f"{cell['model']}, batch {cell['batch']}, {cell['threads']} core(s), prompt "
            f"{cell['prompt']}, new {cell['new']}, rounds {cell['rounds']}, load {cell['load']:.1f}",
            table(["", "prefill/s", "of limit", "decode/s", "spread", "of arith.", "of bandw.",
                   "first ms", "peak MiB"], rows)]
    for name, ratio in cell["ratios"].items():
        figure = ratio["decode_tokens_per_s"]
        text.append(f"  {name}: decode {figure['median']:.2f} ({figure['min']:.2f} to "
                    f"{figure['max']:.2f}), prefill {ratio['prefill_tokens_per_s']['median']:.2f}")
    for name, value, aim, reached in cell["aims"]:
        text.append(f"  {'reached    ' if reached else 'FALLS SHORT'} {name}: {value:.2f}, "
                    f"aim {aim:g}")
    return "\n".join(text)


def strictness_text(results):
    rows = [[f"{r['model']}, {r['rows']} rows", r["fastest"],
             f"{1000 * r['strict_s']:.3g}", f"{1000 * r['library_s']:.3g}",
             f"{100 * (r['ratio']['median'] - 1):+.1f}%",
             f"{100 * (r['ratio']['low'] - 1):+.1f} to {100 * (r['ratio']['high'] - 1):+.1f}%",
             "reached" if r["reached"] else "FALLS SHORT"] for r in results]
    return table(["price of strictness", "library's fastest", "strict ms", "library ms", "price",
                  "95 % interval", f"at most +5%"], rows)
