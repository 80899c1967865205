"""Models that are measured: shapes of real ones, with random weights."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Shape:
    """Letters as in kernels/cpu: width D, layers L, heads H, KV heads K, vocabulary V."""

    name: str
    family: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    vocab: int
    tied: bool
    rope_theta: float

    def kv_bytes_per_position(self, element_bytes):
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def attention_flop(self, prompt):
        """Of one prompt, causal: two products of half the square."""
        return 2 * self.layers * self.heads * self.head_dim * prompt * (prompt + 1)

    def config(self, context):
        """config.json of Hugging Face."""
        kind = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[self.family]
        return {
            "architectures": [kind], "model_type": self.family, "hidden_size": self.width,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "intermediate_size": self.ffn_width, "vocab_size": self.vocab,
            "max_position_embeddings": context, "tie_word_embeddings": self.tied,
            "rope_theta": self.rope_theta, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2
        }

    def tensors(self):
        """(name, shape) of all tensors of the checkpoint."""
        q, kv, d, f = (self.heads * self.head_dim, self.kv_heads * self.head_dim, self.width,
                       self.ffn_width)
        yield "model.embed_tokens.weight", (self.vocab, d)
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            for part, rows in (("q", q), ("k", kv), ("v", kv)):
                yield f"{at}self_attn.{part}_proj.weight", (rows, d)
                if self.family == "qwen2":
                    yield f"{at}self_attn.{part}_proj.bias", (rows, )
            yield f"{at}self_attn.o_proj.weight", (d, q)
            yield f"{at}mlp.gate_proj.weight", (f, d)
            yield f"{at}mlp.up_proj.weight", (f, d)
            yield f"{at}mlp.down_proj.weight", (d, f)
            yield f"{at}input_layernorm.weight", (d, )
            yield f"{at}post_attention_layernorm.weight", (d, )
        yield "model.norm.weight", (d, )
        if not self.tied:
            yield "lm_head.weight", (self.vocab, d)


SHAPES = {
    shape.name: shape
    for shape in [
        # Qwen2.5-0.5B, Qwen2.5-1.5B, Llama-3.1-8B.
        Shape("0.5B", "qwen2", 896, 24, 14, 2, 64, 4864, 151936, True, 1e6),
        Shape("1.5B", "qwen2", 1536, 28, 12, 2, 128, 8960, 151936, True, 1e6),
        Shape("8B", "llama", 4096, 32, 32, 8, 128, 14336, 128256, False, 5e5),
    ]
}


def write_config(shape, context, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.config(context), indent=1))
