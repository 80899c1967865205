"""generate, score and bench engine on a small random model in Hugging Face layout."""

import json
import os
import random
import resource
import struct
import subprocess
import unittest

from support import CLI, CommandTest

CONTEXT, VOCAB = 96, 260
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "bos_token_id": None, "eos_token_id": 256, "torch_dtype": "float32",
}


def byte_alphabet():
    """The characters that byte-level tokenizers write the 256 bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 256
    for byte in range(256):
        table[byte] = chr(byte if byte in plain else extra)
        extra += byte not in plain
    return table


def tokenizer_json():
    vocab = {char: byte for byte, char in byte_alphabet().items()}
    special = {"id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
               "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": "", "end_of_word_suffix": "",
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": vocab, "merges": []}}


def shapes(config):
    width, ffn = config["hidden_size"], config["intermediate_size"]
    head = width // config["num_attention_heads"]
    kv = head * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], width)
    for i in range(config["num_hidden_layers"]):
        for name, shape in (("input_layernorm.weight", (width,)),
                            ("self_attn.q_proj.weight", (width, width)),
                            ("self_attn.k_proj.weight", (kv, width)),
                            ("self_attn.v_proj.weight", (kv, width)),
                            ("self_attn.q_proj.bias", (width,)), ("self_attn.k_proj.bias", (kv,)),
                            ("self_attn.v_proj.bias", (kv,)), ("self_attn.o_proj.weight", (width, width)),
                            ("post_attention_layernorm.weight", (width,)),
                            ("mlp.gate_proj.weight", (ffn, width)), ("mlp.up_proj.weight", (ffn, width)),
                            ("mlp.down_proj.weight", (width, ffn))):
            yield f"model.layers.{i}.{name}", shape
    yield "model.norm.weight", (width,)


def write_model(folder, change=None):
    """`change(name, values)` may alter a tensor's values in place."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, header, data = random.Random(7), {}, b""
    for name, shape in shapes(CONFIG):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * count if "norm" in name else [rng.gauss(0, 0.25) for _ in range(count)]
        if change:
            change(name, values)
        raw = struct.pack(f"<{count}f", *values)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    return folder


class ModelCommandTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.model = write_model(self.folder / "model")

    def lines(self, code, *words, stdin=""):
        done = subprocess.run([CLI, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, code, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def generate(self, *words, code=0, stdin=""):
        return self.lines(code, "generate", self.model, "--json", *words, stdin=stdin)


class InitTest(ModelCommandTest):
    def test_makes_a_model_that_generates_and_is_a_function_of_the_seed(self):
        hashes = {}
        for name, words in (("a", ("--seed", 3)), ("b", ("--seed", 3)), ("c", ("--seed", 4))):
            made = self.folder / name
            self.expect(0, "init", self.model, made, *words)
            hashes[name] = (made / "model.safetensors").read_bytes()
            config = json.loads((made / "config.json").read_text())
            for key in ("hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings"):
                self.assertEqual(config[key], CONFIG[key])
            self.assertEqual((made / "tokenizer.json").read_text(), (self.model / "tokenizer.json").read_text())
            (line,) = self.lines(0, "generate", made, "--json", "--prompt", "abc", "--max-new-tokens", 4)
            self.assertEqual(len(line["token_ids"]), 4)
        self.assertEqual(hashes["a"], hashes["b"])
        self.assertNotEqual(hashes["a"], hashes["c"])

    def test_stores_the_type_that_is_asked_for(self):
        self.expect(0, "init", self.model, self.folder / "half", "--dtype", "bfloat16", "--std", 0.1)
        data = (self.folder / "half" / "model.safetensors").read_bytes()
        header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
        self.assertEqual({t["dtype"] for name, t in header.items() if name != "__metadata__"}, {"BF16"})

    def test_refuses_by_name(self):
        shapeless = self.folder / "nothing"
        shapeless.mkdir()
        done = self.expect(2, "init", shapeless, self.folder / "x")
        self.assertIn("config.json", done.stderr)
        done = self.expect(2, "init", self.model, self.model)
        self.assertIn(str(self.model), done.stderr)
        done = self.expect(2, "init", self.model, self.folder / "x", "--dtype", "int8")
        self.assertIn("allowed: float32, bfloat16, float16", done.stderr)
        self.assertFalse((self.folder / "x").exists())


class GenerateTest(ModelCommandTest):
    PROMPTS = "".join(json.dumps({"id": i, "tokens": [(7 * i + j) % 256 for j in range(3 + 5 * i)]}) + "\n"
                      for i in range(6))

    def sample(self, *words):
        return self.generate("--prompts", "-", "-n", 3, "--max-new-tokens", 12, "--seed", 5, *words,
                             stdin=self.PROMPTS)

    def test_the_same_seed_gives_the_same_bits_however_it_is_run(self):
        first = self.sample("--threads", 1)
        self.assertEqual([line["id"] for line in first], [i for i in range(6) for _ in range(3)])
        self.assertGreater(len({tuple(line["token_ids"]) for line in first}), 15)
        for words in (("--threads", 2), ("--threads", 4, "--max-batch", 1), ("--max-batch", 2),
                      ("--kv-pages", 6), ("--kernels", "portable")):
            self.assertEqual(self.sample(*words), first, words)
        self.assertNotEqual(self.sample("--temperature", 0.9), first)

    def test_score_gives_the_bits_that_were_recorded(self):
        for temperature in (1.0, 0.7):
            made = self.sample("--temperature", temperature, "--top-k", 20, "--repetition-penalty", 1.2)
            asked = "".join(json.dumps({"tokens": m["prompt_token_ids"] + m["token_ids"]}) + "\n" for m in made)
            scored = self.lines(0, "score", self.model, "--temperature", temperature, stdin=asked)
            for m, s in zip(made, scored, strict=True):
                self.assertIsNone(s["logprobs"][0])
                self.assertEqual(s["logprobs"][len(m["prompt_token_ids"]):], m["logprobs"])
                self.assertEqual(len(m["kept_mass_logprobs"]), len(m["logprobs"]))
                # Of the full over the sampled distribution: above 1 where the penalty made a token less likely.
                sampled = [full - mass for full, mass in zip(m["logprobs"], m["kept_mass_logprobs"])]
                self.assertTrue(all(logprob <= 1e-6 for logprob in sampled), sampled)
                self.assertTrue(any(mass != 0 for mass in m["kept_mass_logprobs"]))

    def test_greedy_takes_the_likeliest(self):
        for line in self.generate("--prompt", "abc", "--temperature", 0, "--top-logprobs", 3,
                                  "--max-new-tokens", 8):
            for token, logprob, top in zip(line["token_ids"], line["logprobs"], line["top_logprobs"], strict=True):
                self.assertEqual(top[0], {"token": token, "logprob": logprob})
                self.assertEqual(sorted((-t["logprob"] for t in top)), [-t["logprob"] for t in top])

    def test_a_stop_string_ends_a_sample(self):
        free = self.generate("--prompt", "abc", "--max-new-tokens", 60, "--ignore-eos")[0]
        text = free["text"]
        stop = next(text[i:i + 2] for i in range(4, len(text)) if "\ufffd" not in text[i:i + 2])
        ended = self.generate("--prompt", "abc", "--max-new-tokens", 60, "--ignore-eos", "--stop", stop)[0]
        self.assertEqual((ended["finish_reason"], ended["stop_string"]), ("stop", stop))
        self.assertIn(stop, ended["text"])
        self.assertEqual(ended["token_ids"], free["token_ids"][:len(ended["token_ids"])])
        self.assertLess(len(ended["token_ids"]), len(free["token_ids"]))

    def test_text_streams_to_standard_output(self):
        text = self.generate("--prompt", "abc", "--max-new-tokens", 30)[0]["text"]
        done = subprocess.run([CLI, "generate", str(self.model), "--prompt", "abc", "--max-new-tokens", "30"],
                              capture_output=True, timeout=60)
        self.assertEqual(done.stdout.decode(), text + "\n")

    def test_what_cannot_run_fails_alone(self):
        bad = {"too long": {"tokens": [1] * (CONTEXT + 1)}, "empty": {"tokens": []}, "no id": {"tokens": [VOCAB]},
               "huge": {"tokens": [2 ** 40]}, "text": {"tokens": "abc"}, "nothing": {}, "both": {"tokens": [1], "prompt": "a"}}
        asked = "".join(json.dumps({"id": name, **request}) + "\n" for name, request in bad.items())
        asked += "not json\n" + json.dumps({"id": "good", "prompt": "abc"}) + "\n"
        out = self.generate("--prompts", "-", "--max-new-tokens", 4, code=1, stdin=asked)
        self.assertEqual(len(out), len(bad) + 2)
        for line in out[:-1]:
            self.assertIn("error", line)
        self.assertEqual(out[-1]["id"], "good")
        self.assertEqual(len(out[-1]["token_ids"]), 4)

    def test_a_line_that_nests_deep_fails_alone(self):
        deep = '{"id": ' + "[" * 300000 + "]" * 300000 + ', "tokens": [1]}'
        out = self.generate("--prompts", "-", "--max-new-tokens", 2, code=1, stdin=deep + '\n{"tokens": [1]}\n')
        self.assertIn("error", out[0])
        self.assertEqual(len(out[1]["token_ids"]), 2)
        out = self.lines(1, "score", self.model, stdin=deep + '\n{"tokens": [1, 2]}\n')
        self.assertIn("error", out[0])
        self.assertEqual(len(out[1]["logprobs"]), 2)

    def test_ids_need_no_tokenizer(self):
        (self.model / "tokenizer.json").write_text('{"version": "9.9"}')
        out = self.generate("--prompts", "-", "--max-new-tokens", 2, code=1,
                            stdin='{"tokens": [1, 2]}\n{"prompt": "a"}\n')
        self.assertEqual(len(out[0]["token_ids"]), 2)
        self.assertIn("tokenizer.json", out[1]["error"])
        self.assertIn("token ids", out[1]["error"])
        scored = self.lines(0, "score", self.model, stdin='{"tokens": [1, 2]}\n')
        self.assertEqual(len(scored[0]["logprobs"]), 2)

    def test_a_long_context_costs_nothing_until_it_is_used(self):
        config = dict(CONFIG, max_position_embeddings=1 << 20)
        (self.model / "config.json").write_text(json.dumps(config))
        done = subprocess.run([CLI, "generate", str(self.model), "--prompt", "ab", "--max-new-tokens", "4"],
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        self.assertLess(used, 1 << 30)  # room for 32 such sequences is 8 GiB

    def test_usage_is_refused_with_what_is_allowed(self):
        for words, named in (((), "--prompt"), (("--prompt", "a", "--temperature", -1), "--temperature"),
                             (("--prompt", "a", "--top-p", 0), "--top-p"),
                             (("--prompt", "a", "--kernels", "abacus"), "abacus"),
                             (("--prompt", "a", "--kernel-set", "cpu-fp99"), "cpu-fp99"),
                             (("--prompt", "a", "--chat"), "chat"), (("--prompts", "/nowhere"), "/nowhere"),
                             (("--prompt", "a", "--cpus", 9999), "9999")):
            done = self.expect(2, "generate", self.model, *words)
            self.assertIn(named, done.stderr)
            self.assertEqual(done.stdout, "")

    def test_a_device_that_cannot_be_used_is_refused_and_nothing_falls_back(self):
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        commands = (("generate", self.model, "--prompt", "a"), ("score", self.model),
                    ("bench", "engine", self.model, "--prompt-tokens", 5, "--new-tokens", 6))
        for command in commands:
            self.assertIn("allowed: auto, cpu, cuda, cuda:N", self.expect(2, *command, "--device", "gpu").stderr)
            self.expect(2, *command, "--device", "cuda:0,cuda:1")
            for device in ("cuda", "cuda:9"):
                done = self.expect(3, *command, "--device", device, env=hidden)
                self.assertEqual(done.stdout, "")
                self.assertRegex(done.stderr, rf"^thresher: \w+: --device {device}: .*GPU.*\n$")
        for words, named in ((("--kernel-set", "cuda-bf16-sm90-v1", "--device", "cpu"), "GPUs alone"),
                             (("--kernel-set", "cpu-bf16amx-v1", "--device", "cuda"), "not computed on GPUs")):
            done = self.expect(3, "generate", self.model, "--prompt", "a", *words, env=hidden)
            self.assertIn(named, done.stderr)
        same = [self.generate("--prompt", "a", *words) for words in ((), ("--device", "cpu"), ("--device", "auto"))]
        self.assertEqual(same[0], same[1])
        self.assertEqual(same[0], same[2])

    def test_a_broken_model_is_refused_by_name(self):
        def poison(name, values):
            if name == "model.layers.1.mlp.up_proj.weight":
                values[17] = float("nan")
        broken = write_model(self.folder / "nan", poison)
        done = self.expect(2, "generate", broken, "--prompt", "a")
        self.assertIn("model.layers.1.mlp.up_proj.weight", done.stderr)
        whole = (self.model / "model.safetensors").read_bytes()
        (self.model / "model.safetensors").write_bytes(whole[:-100])
        self.assertIn("model.safetensors", self.expect(2, "generate", self.model, "--prompt", "a").stderr)
        self.assertIn("nowhere", self.expect(2, "generate", self.folder / "nowhere", "--prompt", "a").stderr)


class ScoreTest(ModelCommandTest):
    def test_a_line_depends_on_itself_alone(self):
        rng = random.Random(3)
        asked = [{"tokens": [rng.randrange(VOCAB - 4) for _ in range(rng.randint(1, CONTEXT + 1))]} for _ in range(40)]
        together = self.lines(0, "score", self.model, stdin="".join(json.dumps(a) + "\n" for a in asked))
        for i in (0, 7, 39):
            alone = self.lines(0, "score", self.model, "--threads", 1, stdin=json.dumps(asked[i]) + "\n")
            self.assertEqual(alone[0], together[i])
        for request, line in zip(asked, together, strict=True):
            self.assertEqual(len(line["logprobs"]), len(request["tokens"]))
            self.assertAlmostEqual(line["sum"], sum(line["logprobs"][1:]), places=6)

    def test_text_is_tokenized_and_the_tokens_are_told(self):
        line = self.lines(0, "score", self.model, stdin=json.dumps({"text": "h\u00e9", "id": "x"}))[0]
        self.assertEqual(line["tokens"], list("h\u00e9".encode()))
        self.assertEqual(line["id"], "x")

    def test_what_cannot_be_scored_fails_alone(self):
        asked = [{"tokens": []}, {"tokens": [0, VOCAB]}, {"tokens": [1] * (CONTEXT + 2)}, {"tokens": [1.5]}, {"text": 3},
                 {}, [], {"tokens": [1, 2, 3]}]
        out = self.lines(1, "score", self.model, stdin="".join(json.dumps(a) + "\n" for a in asked))
        for line in out[:-1]:
            self.assertIn("error", line)
        self.assertEqual(len(out[-1]["logprobs"]), 3)


class BenchTest(ModelCommandTest):
    def test_reports_every_batch_size(self):
        done = self.expect(0, "bench", "engine", self.model, "--batch", "1,3", "--prompt-tokens", 5,
                           "--new-tokens", 6, "--rounds", 2)
        report = json.loads(done.stdout)
        self.assertEqual([row["batch"] for row in report["rows"]], [1, 3])
        for row in report["rows"]:
            for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "first_token_s"):
                figure = row[name]
                self.assertTrue(0 < figure["min"] <= figure["median"] <= figure["max"], (name, figure))
        # 2 for every weight of a product: two layers, and the tied head.
        layer = 32 * (32 + 16 + 16 + 32 + 3 * 64)
        self.assertEqual(report["product_flop_per_token"], 2 * (2 * layer + 32 * VOCAB))

    def test_refuses_more_than_the_context(self):
        done = self.expect(2, "bench", "engine", self.model, "--prompt-tokens", 90, "--new-tokens", 20)
        self.assertIn(str(CONTEXT), done.stderr)


if __name__ == "__main__":
    unittest.main()
