"""Writes unicode_ranges.inc: the ranges of code points that the patterns' classes stand for.

The classes are those of Unicode 16.0, which Oniguruma 6.9.10 and the Rust regex crate have, and so
the `tokenizers` package; they are a table and not a system library's so that a text has the same
ids on every machine. Needs the `regex` package of that Unicode version:
    pip install regex==2024.11.6 && python3 unicode_tables.py > unicode_ranges.inc
"""

import regex

CLASSES = {
    "kLetters": r"\p{L}",
    "kNumbers": r"\p{N}",
    "kSpaces": r"\p{White_Space}",
    # \w of the regex crate (Unicode Technical Standard 18, Annex C)
    "kWordCharacters": r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]",
}


def ranges(pattern):
    """Inclusive ranges of the scalar values that match."""
    out = []
    matches = regex.compile(pattern).match
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or not matches(chr(code)):
            continue
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def main():
    print("// Written by unicode_tables.py from Unicode 16.0; not edited by hand. Inclusive ranges.")
    print("// clang-format off")
    for name, pattern in CLASSES.items():
        print(f"constexpr Range {name}[] = {{")
        line = "   "
        for low, high in ranges(pattern):
            item = f" {{{low:#x}, {high:#x}}},"
            if len(line) + len(item) > 100:
                print(line)
                line = "   "
            line += item
        print(line)
        print("};")
    print("// clang-format on")


if __name__ == "__main__":
    main()
