"""The study's figures, as SVG written by hand: they follow the reader's light or dark scheme and need no library."""

import statistics
from xml.sax.saxutils import escape

import plan
import report

# Text, grid and paper of both schemes; the three arms have colours that are told apart in either, also without
# colour vision (blue, orange, grey), and line styles besides.
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .name { font: 600 12px ui-monospace, monospace; }
  .small { font-size: 10.5px; fill: #57606a; }
  .paper { fill: #ffffff; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .axis { stroke: #8c959f; stroke-width: 1; }
  .aim { stroke: #57606a; stroke-width: 1; stroke-dasharray: 2 3; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .band { opacity: 0.18; stroke: none; }
  .preset { stroke: #0969da; } .preset-fill { fill: #0969da; }
  .permuted { stroke: #bc4c00; stroke-dasharray: 5 3; } .permuted-fill { fill: #bc4c00; }
  .supervised { stroke: #6e7781; stroke-dasharray: 1.5 3; } .supervised-fill { fill: #6e7781; }
  .solid { stroke-dasharray: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } .paper { fill: #0d1117; }
    .grid { stroke: #2a313c; } .axis { stroke: #656c76; } .aim { stroke: #9198a1; }
    .preset { stroke: #58a6ff; } .preset-fill { fill: #58a6ff; }
    .permuted { stroke: #f0883e; } .permuted-fill { fill: #f0883e; }
    .supervised { stroke: #9198a1; } .supervised-fill { fill: #9198a1; }
  }
"""
ARMS = (("preset", "preset"), ("permuted", "permuted rewards"), ("supervised", "more supervised training"))


class Canvas:
    def __init__(self, width, height, title):
        self.size = (width, height)
        self.title = title
        self.parts = []

    def add(self, element, text=None, **attributes):
        """An element; `klass` is its class, '_' in names stands for '-'."""
        words = "".join(f' {"class" if k == "klass" else k.replace("_", "-")}="{v:.1f}"' if isinstance(v, float) else
                        f' {"class" if k == "klass" else k.replace("_", "-")}="{v}"' for k, v in attributes.items())
        self.parts.append(f"<{element}{words}/>" if text is None else f"<{element}{words}>{escape(text)}</{element}>")

    def text(self, x, y, text, klass="", anchor="start"):
        self.add("text", text, x=float(x), y=float(y), klass=klass, text_anchor=anchor)

    def path(self, points, klass, closed=False):
        d = " ".join(f"{'L' if i else 'M'}{x:.1f},{y:.1f}" for i, (x, y) in enumerate(points))
        self.add("path", d=d + (" Z" if closed else ""), klass=klass)

    def legend(self, x, y):
        for arm, name in ARMS:
            self.path([(x, y - 4), (x + 26, y - 4)], f"line {arm}")
            self.text(x + 32, y, name)
            x += 48 + 7.2 * len(name)

    def svg(self):
        width, height = self.size
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                f'height="{height}" role="img"><title>{escape(self.title)}</title><style>{STYLE}</style>\n'
                f'<rect class="paper" width="{width}" height="{height}" rx="6"/>\n')
        return head + "\n".join(self.parts) + "\n</svg>\n"


def course(study, arm, preset=""):
    """[(thousand tokens, mean, least, greatest over seeds)] from the checkpoint to the end."""
    runs = study.judged(arm, preset)
    starts = study.finals("checkpoint")
    points = [(0.0, starts)]
    ends = [report.ending(r) for r in runs]
    for k in range(len(runs[0]["curve"])):
        tokens = [r["curve"][k]["tokens"] for r in runs]
        if all(t < end for t, (end, _) in zip(tokens, ends, strict=True)):
            points.append((statistics.fmean(tokens) / 1000, [r["curve"][k]["pass_at_1"] for r in runs]))
    points.append((statistics.fmean(spent for spent, _ in ends) / 1000, [value for _, value in ends]))
    return [(x, statistics.fmean(values), min(values), max(values)) for x, values in points]


def panel(canvas, study, preset, box, limits):
    left, top, width, height = box
    most_tokens, most = limits

    def at(tokens, value):
        return left + width * tokens / most_tokens, top + height * (1 - value / most)

    for step in range(0, int(most * 10) + 1):
        y = at(0, step / 10)[1]
        canvas.path([(left, y), (left + width, y)], "grid" if step else "axis")
        if step % 2 == 0:
            canvas.text(left - 6, y + 4, f"{step / 10:.1f}", "small", "end")
    for tokens in range(0, int(most_tokens) + 1, 200):
        canvas.text(at(tokens, 0)[0], top + height + 14, f"{tokens}", "small", "middle")
    canvas.text(left, top - 8, preset, "name")
    for arm, of in (("supervised", ""), ("permuted", preset), ("preset", preset)):
        if not study.judged(arm, of):
            continue
        points = course(study, arm, of)
        outline = [at(x, high) for x, _, _, high in points] + [at(x, low) for x, _, low, _ in reversed(points)]
        canvas.path(outline, f"band {arm}-fill", closed=True)
        canvas.path([at(x, mean) for x, mean, _, _ in points], f"line {arm}")


def curves(study):
    """pass@1 over generated tokens: a panel for each preset, its controls beside it."""
    columns, width, height = 4, 190, 130
    rows = -(-len(study.presets) // columns)
    canvas = Canvas(30 + columns * (width + 36), 90 + rows * (height + 56),
                    "Held-out pass@1 over generated tokens, by preset")
    canvas.text(24, 30, "Held-out pass@1 over generated tokens (thousands)", "title")
    canvas.text(24, 50, f"mean of seeds {', '.join(map(str, study.seeds))}; bands from the least seed to the greatest; "
                        "supervised training over learned tokens", "small")
    canvas.legend(24, 74)
    everything = [point for preset in study.presets for point in course(study, "preset", preset)]
    most = max(0.5, -(-max(high for *_, high in everything) * 10 // 1) / 10)
    for k, preset in enumerate(study.presets):
        box = (50 + (k % columns) * (width + 36), 112 + (k // columns) * (height + 56), width, height)
        panel(canvas, study, preset, box, (plan.TOKEN_BUDGET / 1000, most))
    return canvas.svg()


def gains(study):
    """How far each preset ends above each control, with intervals."""
    left, width, top, step = 130, 520, 104, 44
    canvas = Canvas(left + width + 40, top + step * len(study.presets) + 46,
                    "Held-out pass@1 above the controls, by preset")
    canvas.text(24, 30, "Held-out pass@1 above the controls", "title")
    canvas.text(24, 50, f"differences seed by seed, mean of {len(study.seeds)} and 95 % t-interval; dots: single seeds; "
                        f"dotted: the aim, {report.AIM:.2f}", "small")
    canvas.path([(24, 70), (50, 70)], "line solid permuted")
    canvas.text(56, 74, "above permuted rewards")
    canvas.path([(220, 70), (246, 70)], "line solid supervised")
    canvas.text(252, 74, "above more supervised training")
    shown = [(k, preset, arm, study.gain(preset, arm)) for k, preset in enumerate(study.presets)
             for arm in report.CONTROLS if study.gain(preset, arm)]
    low = min([0.0] + [report.interval(values).low for *_, values in shown])
    high = max([0.3] + [report.interval(values).high for *_, values in shown])
    low, high = -(-(low * 10 - 0.999) // 1) / 10 if low < 0 else 0.0, -(-high * 20 // 1) / 20

    def x(value):
        return left + width * (value - low) / (high - low)

    bottom = top + step * len(study.presets)
    ticks = round((high - low) / 0.05)
    for k in range(ticks + 1):
        value = low + k * 0.05
        canvas.path([(x(value), top - 6), (x(value), bottom)], "axis" if abs(value) < 1e-9 else "grid")
        if k % 2 == 0:
            canvas.text(x(value), bottom + 18, f"{value:+.1f}" if abs(value) > 1e-9 else "0", "small", "middle")
    canvas.path([(x(report.AIM), top - 6), (x(report.AIM), bottom)], "aim")
    for k, preset, arm, values in shown:
        y = top + step * k + (12 if arm == "permuted" else 28)
        if arm == "supervised":
            canvas.text(left - 14, y - 4, preset, "name", "end")
        whole = report.interval(values)
        canvas.path([(x(whole.low), y), (x(whole.high), y)], f"line solid {arm}")
        canvas.add("circle", cx=x(whole.mean), cy=float(y), r=5, klass=f"{arm}-fill")
        for value in values:
            canvas.add("circle", cx=x(value), cy=float(y - 6), r=1.8, klass=f"{arm}-fill")
    return canvas.svg()
