"""random_model.py SHAPE CONTEXT FOLDER: a model folder with random bf16 weights.

They are drawn on the GPU; `thresher init` draws one after another, too slowly for 8B. Exit 4 where
torch or safetensors are missing.

Shards of at most 4 GB, with an index, as Hugging Face writes them. Norms are ones, biases small."""

import json
import pathlib
import sys

import shapes

SHARD_BYTES = 4 << 30


def shards_of(shape):
    """Lists of (name, shape), each below SHARD_BYTES unless one tensor is not."""
    shards, held = [[]], 0
    for name, size in shape.tensors():
        count = 2 * size[0] * (size[1] if len(size) == 2 else 1)
        if shards[-1] and held + count > SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append((name, size))
        held += count
    return shards


def main(name, context, folder):
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        print(error, file=sys.stderr)
        return 4
    shape, folder = shapes.SHAPES[name], pathlib.Path(folder)
    shapes.write_config(shape, context, folder)
    generator = torch.Generator("cuda").manual_seed(1)
    shards, places = shards_of(shape), {}
    for number, tensors in enumerate(shards, 1):
        file = (f"model-{number:05}-of-{len(shards):05}.safetensors"
                if len(shards) > 1 else "model.safetensors")
        values = {}
        for tensor, size in tensors:
            places[tensor] = file
            if tensor.endswith("norm.weight"):
                values[tensor] = torch.ones(size, dtype=torch.bfloat16)
            else:
                drawn = torch.randn(size, generator=generator, device="cuda", dtype=torch.bfloat16)
                values[tensor] = (drawn * 0.02).cpu()
        save_file(values, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "complete").write_text("")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
