"""Samples per second of a run's reinforcement steps after the first, from its metrics.

  our_rate.py RUN
"""

import json
import pathlib
import sys


def main():
    marks, samples, tokens = [], [], []
    for line in (pathlib.Path(sys.argv[1]) / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record.get("phase") != "rl":
            continue
        marks.append(record["time"])
        samples.append(record["samples"])
        tokens.append(record["rollout"]["length_mean"])
    rate = sum(samples[1:]) / (marks[-1] - marks[0])
    print(json.dumps({"ours": "thresher run", "samples_per_s": rate,
                      "tokens": sum(tokens) / len(tokens),
                      "step_s": [b - a for a, b in zip(marks, marks[1:])]}))


if __name__ == "__main__":
    main()
