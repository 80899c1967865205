"""Ids, decoded text and streamed text of Thresher's tokenizer against the `tokenizers` package.

Usage: check_tokenizers.py TOOL [STRINGS]. STRINGS: how many a style. Exit 1 with the first
differences if there is any.
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

STRINGS = 20_000  # a style, unless it is told
SEQUENCES = 2_000  # of random ids, a style
EVERY_CHARACTER = ("gpt2", "qwen2", "llama3")  # these also see each character there is


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


def ids_of(tokenizer, texts, special):
    """In batches: what the package keeps of a text is a thousand times its ids."""
    for at in range(0, len(texts), 500):
        batch = tokenizer.encode_batch_fast(texts[at:at + 500], add_special_tokens=special)
        yield from (encoding.ids for encoding in batch)


def check_ids(name, theirs, ours, specials, count, failures):
    """Compares encodings; returns the strings."""
    data = corpus.strings(11, count, specials)
    if name in EVERY_CHARACTER:
        data += [s.encode("utf-8") for s in corpus.every_character()]
    texts = [d.decode("utf-8", "replace") for d in data]
    for given, want, reply in zip(data, ids_of(theirs, texts, False), ours("encode", data)):
        failures.compare(f"{name} encode", given, want, bytes_to_ids(reply))
    some, data_of_some = texts[:SEQUENCES], data[:SEQUENCES]
    for given, want, reply in zip(some, ids_of(theirs, some, True), ours("special", data_of_some)):
        failures.compare(f"{name} special", given, want, bytes_to_ids(reply))
    return texts


def check_texts(name, theirs, ours, texts, failures):
    """Compares decoding of random ids and of the ids of texts."""
    rng = random.Random(13)
    size = theirs.get_vocab_size()
    sequences = [[rng.randrange(size) for _ in range(rng.randrange(1, 30))]
                 for _ in range(SEQUENCES)]
    sequences += ids_of(theirs, texts[:SEQUENCES], False)
    requests = [ids_to_bytes(s) for s in sequences]
    for what, skip in (("decode", True), ("text", False), ("stream", False)):
        for ids, reply in zip(sequences, ours(what, requests)):
            failures.compare(f"{name} {what}", ids, theirs.decode(ids, skip_special_tokens=skip),
                             reply.decode("utf-8"))


def check_style(name, text, tool, count, failures):
    """Compares one style; returns the number of strings."""
    theirs = Tokenizer.from_str(text)
    specials = [t.content for t in theirs.get_added_tokens_decoder().values()] or ["<none>"]
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")

        def ours(what, messages):
            return ask([tool, what, folder], messages)

        texts = check_ids(name, theirs, ours, specials, count, failures)
        check_texts(name, theirs, ours, texts, failures)
    return len(texts)


def main():
    failures, strings = Failures(), 0
    count = int(sys.argv[2]) if len(sys.argv) > 2 else STRINGS
    for name, text in styles.styles().items():
        before = failures.count
        strings += check_style(name, text, sys.argv[1], count, failures)
        print(f"{name}: {failures.count - before} differences", flush=True)
    print(f"tokenizers {tokenizers.__version__}: {strings} strings, {failures.count} differences")
    return 1 if failures.count else 0


if __name__ == "__main__":
    sys.exit(main())
