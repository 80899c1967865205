"""Throughput on one thread, Thresher and the `tokenizers` package in turn: MB of UTF-8 a second.

Usage: measure.py TOOL. A vocabulary of 32,000 tokens is trained on this project's own text and code;
measured are that text, that code and sentences of many languages. Each side encodes the pieces of a
text one by one (1 KiB each, and the whole as one string), five times in turn; the best counts.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import tokenizers
from tokenizers import Tokenizer, normalizers

import corpus
import styles

ROUNDS = 5


def texts():
    """Name -> about 4 MB."""
    readme = [t for t in corpus.code() if t.startswith("# ")]
    code = [t for t in corpus.code() if not t.startswith("# ")]
    made = {"english": "\n".join(readme), "code": "\n".join(code),
            "languages": "\n".join(corpus.SENTENCES)}
    return {name: (text * (4_000_000 // len(text.encode()) + 1)) for name, text in made.items()}


def cut(text, size):
    return [text[at:at + size] for at in range(0, len(text), size)]


def theirs(tokenizer, pieces):
    begin = time.perf_counter()
    for piece in pieces:
        tokenizer.encode(piece, add_special_tokens=False)
    return time.perf_counter() - begin


def ours(tool, folder, pieces):
    """The tool times its own encoding."""
    data = b"".join(len(p).to_bytes(4, "little") + p for p in (q.encode() for q in pieces))
    done = subprocess.run([tool, "time", folder], input=data, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def main():
    tool = sys.argv[1]
    print(f"tokenizers {tokenizers.__version__}, one thread; MB/s: ours, theirs, ratio")
    all_styles = {"qwen2": (styles.QWEN2, normalizers.NFC()), "llama3": (styles.LLAMA3, None)}
    for name, (pattern, normalizer) in all_styles.items():
        tokenizer = styles.train(styles.split(pattern), normalizer, size=32_000)
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
            fresh = Tokenizer.from_str(tokenizer.to_str())
            for kind, text in texts().items():
                for label, pieces in (("1 KiB pieces", cut(text, 1024)), ("whole", [text])):
                    size = len(text.encode()) / 1e6
                    best = [1e9, 1e9]
                    for _ in range(ROUNDS):
                        best[0] = min(best[0], ours(tool, folder, pieces))
                        best[1] = min(best[1], theirs(fresh, pieces))
                    rates = [size / seconds for seconds in best]
                    print(json.dumps({"style": name, "text": kind, "cut": label,
                                      "ours": round(rates[0], 1), "theirs": round(rates[1], 1),
                                      "ratio": round(rates[0] / rates[1], 1)}), flush=True)


if __name__ == "__main__":
    main()
