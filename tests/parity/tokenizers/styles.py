"""Small tokenizers in each supported style, trained here by the `tokenizers` package."""

import json
import random

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

import corpus

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
MODERN = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*"""
          r"""|\s*[\r\n]+|\s+(?!\S)|\s+""")
QWEN2 = MODERN.replace("NUMBER", r"\p{N}")
LLAMA3 = MODERN.replace("NUMBER", r"\p{N}{1,3}")
# The spellings of tiktoken, which mean the same.
GPT2_TIKTOKEN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3_TIKTOKEN = (r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"""
                   r"""| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+""")

QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA_TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                "<|eot_id|>"]
# Every option of an added token, contents outside the byte alphabet, one within another, spaces.
ODD_TOKENS = [
    AddedToken("<left>", lstrip=True, normalized=False, special=True),
    AddedToken("<right>", rstrip=True, normalized=False, special=True),
    AddedToken("<both>", lstrip=True, rstrip=True, normalized=True, special=False),
    AddedToken("<word>", single_word=True, normalized=False, special=False),
    AddedToken("word", single_word=True, normalized=True, special=False),
    AddedToken("<a>", normalized=False, special=False),
    AddedToken("<a><b>", normalized=False, special=True),
    AddedToken("caf\u00e9", normalized=True, special=False),
    AddedToken("na\u00efve\u4e2d", normalized=False, special=False),
    AddedToken("  ", normalized=False, special=False),
    AddedToken("\u00e9<x>", normalized=True, special=True),
]


def split(pattern, prefix_space=False, use_regex=False, behavior="isolated"):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior=behavior, invert=behavior == "removed"),
        pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=use_regex)])


def train(pre_tokenizer, normalizer=None, special=(), added=(), size=1500):
    """A tokenizer in the given style, trained on texts of all kinds."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=list(special),
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([*corpus.code(), *(corpus.SENTENCES * 20)], trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def edited(tokenizer, edit):
    """The tokenizer of the JSON that `edit` has changed."""
    document = json.loads(tokenizer.to_str())
    edit(document)
    return json.dumps(document, ensure_ascii=False)


def merges_as_lines(document):
    document["model"]["merges"] = [" ".join(m) for m in document["model"]["merges"]]


def without_some_merges(document):
    """Tokens that merging cannot reach: whether a word is looked up first now matters."""
    rng = random.Random(7)
    document["model"]["merges"] = [m for m in document["model"]["merges"] if rng.random() > 0.15]


def styles():
    """Name -> tokenizer.json."""
    plain = train(pre_tokenizers.ByteLevel(add_prefix_space=False), special=["<|endoftext|>"])
    prefixed = train(pre_tokenizers.ByteLevel(add_prefix_space=True), added=ODD_TOKENS)
    qwen = train(split(QWEN2), normalizers.NFC(), added=[
        *(AddedToken(t, special=True, normalized=False) for t in QWEN_TOKENS),
        *(AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>"))])
    qwen_odd = train(split(QWEN2), normalizers.Sequence([normalizers.NFC()]), added=ODD_TOKENS)
    llama = train(split(LLAMA3), special=LLAMA_TOKENS)
    llama.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A <|eot_id|>",
            special_tokens=[(t, llama.token_to_id(t)) for t in ("<|begin_of_text|>", "<|eot_id|>")])])
    mixed = train(split(LLAMA3, prefix_space=True, use_regex=True, behavior="removed"),
                  normalizers.NFC())

    def llama_merges(document):
        without_some_merges(document)
        document["model"]["ignore_merges"] = True

    return {
        "gpt2": edited(plain, merges_as_lines),
        "gpt2-split": train(split(GPT2)).to_str(),
        "gpt2-tiktoken": train(split(GPT2_TIKTOKEN), special=["<|endoftext|>"]).to_str(),
        "gpt2-prefix": prefixed.to_str(),
        "qwen2": qwen.to_str(),
        "qwen2-odd": edited(qwen_odd, without_some_merges),
        "llama3": edited(llama, llama_merges),
        "llama3-tiktoken": train(split(LLAMA3_TIKTOKEN)).to_str(),
        "mixed": mixed.to_str(),
    }
