"""The generated part of docs/gpu.md. What is written by hand stands outside its markers."""

import re

import figures

BEGIN, END = "<!-- gpu report: begin -->", "<!-- gpu report: end -->"
BENCH_SECTIONS = (("limits", "The device's own limits"), ("gemm", "Products"),
                  ("attention", "Attention"), ("head", "Head: scan and draw"),
                  ("training-0.5B", "Learner, 0.5B: forward and backward"),
                  ("training-1.5B", "Learner, 1.5B: forward and backward"))
BENCH_HEAD = ["figure", "median (least to greatest)", "limit", "of it", "price of strictness"]
ENGINE_HEAD = [
    "model", "batch", "context", "kernel set", "decode tokens/s", "of the bandwidth",
    "prefill tokens/s", "of the matrix rate", "Transformers decode (ours / theirs)"
]


class NoMarkers(Exception):
    """The page is not one that has a generated part."""


def put(path, text):
    """Replaces what is between the markers of `path`. Raises NoMarkers."""
    old = path.read_text() if path.exists() else ""
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise NoMarkers(f"{path} needs the lines {BEGIN} and {END}, once each")
    before, rest = old.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{rest.split(END)[1]}")


def cell(text):
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").strip()


def table(head, rows):
    """Columns in which nothing stands are left out."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    lines = [[head[i] for i in kept], *([row[i] for i in kept] for row in rows)]
    text = ["| " + " | ".join(map(cell, line)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(kept), *text[1:]])


def generated(found, pieces, results):
    parts = [
        "## Report",
        about(found, results), *checks(pieces, results), *open_ends(pieces, results),
        *benchmarks(results)
    ]
    return "\n\n".join(part for part in parts if part)


def about(found, results):
    device, seen = found["device"], results.figures("build/device")
    every = results.steps.values()
    dates = sorted({result["date"] for result in every})
    rows = [[
        "date", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "none"
    ],
            [
                "device", ", ".join([
                    device["name"], device["memory"], f"compute capability {device['capability']}",
                    *([f"{seen['multiprocessors']} multiprocessors"] if seen else [])
                ])
            ], ["driver", device["driver"]]]
    rows += [[name, version] for name, version in found["versions"].items()]
    rows += [["revision", ", ".join(sorted({result["revision"]
                                            for result in every}))],
             ["command", f"`{found['command']}`"]]
    others = sorted({result["device"]["name"] for result in every} - {device["name"]})
    if others:
        rows.append(["also measured on", ", ".join(others)])
    if len({result["key"] for result in every}) > 1:
        rows.append(["note", "not all results are of the same sources"])
    return table(["what", "is"], rows)


def outcome(result):
    if result is None:
        return "not run"
    return {"passed": "passed", "not run": "not run"}.get(result["status"],
                                                          result["status"].upper())


def said(result):
    """What a step of the checks found, in words."""
    seen = result.get("figures") or {}
    words = []
    if "passed" in seen:
        words.append(f"{seen['passed']} test{'' if seen['passed'] == 1 else 's'} passed")
        for reason, number in seen.get("skipped", {}).items():
            words.append(f"{number} skipped: {reason}")
    words += seen.get("seen", [])
    if "unfinished" in seen:
        words.append(f"stopped in {seen['unfinished']}")
    for key in ("summary", "version", "final weights", "audited tokens"):
        if key in seen:
            words.append(f"{seen[key]}" if key in ("summary", "version") else f"{key} {seen[key]}")
    if seen.get("pass@1"):
        words.append("pass@1 " + ", ".join(seen["pass@1"]))
    return "; ".join(words)


def checks(pieces, results):
    rows = []
    for piece in pieces:
        if piece.name == "bench":
            continue
        for step in piece.steps:
            result = results.get(f"{piece.name}/{step.name}")
            rows.append([
                piece.title, step.name,
                outcome(result),
                said(result or {}),
                f"{result['seconds']:.0f}" if result and result["seconds"] else ""
            ])
    return [
        "### Checked, in this order",
        table(["piece", "step", "result", "seen", "seconds"], rows)
    ]


def open_ends(pieces, results):
    """What failed and what was not run, with the reasons; steps with the same one in one line."""
    failed, missing = [], {}
    for piece in pieces:
        for step in piece.steps:
            name = f"{piece.name}/{step.name}"
            result = results.get(name)
            if result is None:
                missing.setdefault("not begun", []).append(name)
            elif result["status"] == "not run":
                missing.setdefault(result["detail"], []).append(name)
            elif result["status"] != "passed":
                failed.append(f"- `{name}` {result['status']}: {cell(result['detail'])}")
    yield "### Failed"
    yield "\n".join(failed) if failed else "Nothing."
    yield "### Not run"
    yield ("\n".join(f"- {cell(reason)}: {', '.join(f'`{name}`' for name in names)}"
                     for reason, names in missing.items()) if missing else "Nothing.")


def benchmarks(results):
    parts = []
    for section, title in BENCH_SECTIONS:
        rows = figures.bench_rows(results, section)
        notes = results.figures(f"bench/{section}").get("notes", [])
        if rows or notes:
            parts += [f"#### {title}", *([table(BENCH_HEAD, rows)] if rows else []), *notes]
    rows, aims = figures.engine_rows(results)
    if rows:
        parts += ["#### Engine, random weights", table(ENGINE_HEAD, rows)]
    aims = [*figures.bench_aims(results), *aims]
    if aims:
        short = [aim for aim in aims if not aim.reached]
        parts += [
            "#### Aims", f"{len(aims) - len(short)} of {len(aims)} reached." +
            "".join(f"\n- falls short: {aim.what}: {figures.percent(aim.seen)}, aim "
                    f"{'at most' if aim.most else 'at least'} {figures.percent(aim.aim)}"
                    for aim in short)
        ]
    return ["### Measured", *parts] if parts else []
