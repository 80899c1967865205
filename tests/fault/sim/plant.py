"""Writes a copy of a source file with a bug in it.

plant.py BUG SOURCE_ROOT OUT. BUG is a text file: the path of a source on the first line ("HEADER in SOURCE" for one that
this source alone includes), what the bug is on the following ones, then one or more replacements:

    ---- instead of
    lines of the source
    ---- there is
    lines of the bug

Each text to be replaced occurs exactly once; otherwise the source has changed, and the bug must follow.
"""
import pathlib
import sys


def plant(bug: str, source: str) -> str:
    parts = bug.split("---- instead of\n")[1:]
    if not parts:
        raise SystemExit("no '---- instead of'")
    for part in parts:
        old, new = part.split("---- there is\n")
        if source.count(old) != 1:
            raise SystemExit(f"occurs {source.count(old)} times, not once:\n{old}")
        source = source.replace(old, new)
    return source


def main() -> None:
    bug_file, root, out = (pathlib.Path(argument) for argument in sys.argv[1:])
    bug = bug_file.read_text()
    path, _, source = bug.splitlines()[0].partition(" in ")
    try:
        text = plant(bug, (root / path).read_text())
    except SystemExit as failure:
        raise SystemExit(f"{bug_file}: {path}: {failure}") from None
    text = f'#line 1 "{path} with {bug_file.name}"\n' + text
    if source:
        before, included, after = (root / source).read_text().partition(f'#include "{path}"\n')
        if not included:
            raise SystemExit(f"{bug_file}: {source} does not include {path}")
        text = before + text.replace("#pragma once\n", "") + f'#line 1 "{source}"\n' + after
    out.write_text(text)


if __name__ == "__main__":
    main()
