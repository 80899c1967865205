"""Ids, decoded text and streamed text of Thresher's tokenizer against the `tokenizers` package.

Usage: check_tokenizers.py TOOL. Exit 1 with the first differences if there is any.
"""

import pathlib
import random
import sys
import tempfile

import tokenizers
from tokenizers import Tokenizer

import corpus
import styles
from tool import ask, bytes_to_ids, ids_to_bytes

STRINGS = 20_000  # a style
SEQUENCES = 2_000  # of random ids, a style


class Failures:
    """Counts differences and shows the first few."""

    def __init__(self):
        self.count = 0

    def compare(self, what, given, expected, got):
        if expected == got:
            return
        self.count += 1
        if self.count <= 5:
            print(f"{what}: {given!r}\n  expected {expected!r}\n  got      {got!r}")


def check_style(name, text, tool, failures):
    """Compares one style; returns the number of strings."""
    theirs = Tokenizer.from_str(text)
    specials = [t.content for t in theirs.get_added_tokens_decoder().values()] or ["<none>"]
    data = corpus.strings(11, STRINGS, specials)
    data += [s.encode("utf-8") for s in corpus.every_character()]
    texts = [d.decode("utf-8", "replace") for d in data]
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")

        def ours(what, messages):
            return ask([tool, what, folder], messages)

        for what, special in (("encode", False), ("special", True)):
            expected = [e.ids for e in theirs.encode_batch(texts, add_special_tokens=special)]
            for given, want, reply in zip(data, expected, ours(what, data)):
                failures.compare(f"{name} {what}", given, want, bytes_to_ids(reply))
        rng = random.Random(13)
        size = theirs.get_vocab_size()
        sequences = [[rng.randrange(size) for _ in range(rng.randrange(1, 30))]
                     for _ in range(SEQUENCES)]
        sequences += [theirs.encode(t, add_special_tokens=False).ids for t in texts[:SEQUENCES]]
        requests = [ids_to_bytes(s) for s in sequences]
        for what, skip in (("decode", True), ("text", False), ("stream", False)):
            for ids, reply in zip(sequences, ours(what, requests)):
                failures.compare(f"{name} {what}", ids, theirs.decode(ids, skip_special_tokens=skip),
                                 reply.decode("utf-8"))
    return len(data)


def main():
    failures, strings = Failures(), 0
    for name, text in styles.styles().items():
        before = failures.count
        strings += check_style(name, text, sys.argv[1], failures)
        print(f"{name}: {failures.count - before} differences", flush=True)
    print(f"tokenizers {tokenizers.__version__}: {strings} strings, {failures.count} differences")
    return 1 if failures.count else 0


if __name__ == "__main__":
    sys.exit(main())
