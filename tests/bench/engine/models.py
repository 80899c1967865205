"""Random models of the Qwen2 family, as Hugging Face folders and as GGUF files, made once."""

import dataclasses
import json
import pathlib

CONTEXT = 512


@dataclasses.dataclass(frozen=True)
class Shape:
    """Letters as in kernels/cpu: width D, layers L, heads H, KV heads K, vocabulary V; tied."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn_width: int
    vocab: int

    @property
    def head_dim(self):
        return self.width // self.heads

    @property
    def products(self):
        """[n, k, count] of every product of a token, the head's last."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [[q + 2 * kv, self.width, self.layers], [self.width, q, self.layers],
                [2 * self.ffn_width, self.width, self.layers],
                [self.width, self.ffn_width, self.layers], [self.vocab, self.width, 1]]

    @property
    def head_weights(self):
        return self.vocab * self.width

    @property
    def layer_weights(self):
        return sum(n * k * count for n, k, count in self.products[:-1])

    @property
    def flop_per_token(self):
        """Of the products of a decoded token: a multiplication and an addition for each weight."""
        return 2 * (self.layer_weights + self.head_weights)

    def prefill_flop(self, prompt):
        """Of the products of one prompt; the head is wanted for its last token alone."""
        return 2 * (prompt * self.layer_weights + self.head_weights)


SHAPES = {shape.name: shape for shape in [
    Shape("1M", width=128, layers=4, heads=4, kv_heads=2, ffn_width=512, vocab=256),
    Shape("30M", width=512, layers=8, heads=8, kv_heads=2, ffn_width=1536, vocab=8192),
    Shape("125M", width=768, layers=12, heads=12, kv_heads=4, ffn_width=2432, vocab=50304),
    # Qwen2.5-0.5B.
    Shape("0.5B", width=896, layers=24, heads=14, kv_heads=2, ffn_width=4864, vocab=151936),
]}

GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if name in GGUF_NAMES:
        return GGUF_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"


def random_model(shape):
    import torch
    import transformers
    config = transformers.Qwen2Config(
        vocab_size=shape.vocab, hidden_size=shape.width, intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, max_position_embeddings=CONTEXT,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(1)
    model = transformers.Qwen2ForCausalLM(config).eval()
    with torch.no_grad():  # biases begin as zeros, which no trained model has
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(0, 0.02)
    return model


def write_gguf(path, shape, tensors, kind):
    """tensors: Hugging Face's, fp32. kind: F32, F16 or BF16, of the matrices; vectors are fp32."""
    import gguf
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("none")
    writer.add_file_type({"F32": 0, "F16": 1, "BF16": 32}[kind])
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(gguf_name(name), values)
        else:
            quantization = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, quantization),
                              raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(shape, folder):
    """Makes what is not there yet: folders f32 and bf16, files F32.gguf, F16.gguf, BF16.gguf."""
    folder = pathlib.Path(folder) / shape.name
    stamp = folder / "complete"
    wanted = json.dumps([dataclasses.asdict(shape), CONTEXT])
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    import torch
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(shape)
    tensors = {name: tensor for name, tensor in model.state_dict().items()
               if name != "lm_head.weight"}
    for kind in ("F32", "F16", "BF16"):
        write_gguf(folder / f"{kind}.gguf", shape, tensors, kind)
    model.save_pretrained(folder / "f32")
    model.to(torch.bfloat16).save_pretrained(folder / "bf16")
    stamp.write_text(wanted)
    return folder
