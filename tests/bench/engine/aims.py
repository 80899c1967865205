"""What the engine is meant to reach, as checks on the figures of one cell.

A check is (name, value, aim, reached), `value` and `aim` being fractions or factors; `judge` gives
those that apply to a cell.
"""


def at_least(name, value, aim):
    return None if value is None else (name, value, aim, value >= aim)


def at_most(name, value, aim):
    return None if value is None else (name, value, aim, value <= aim)


def ratio(cell, ours, peer):
    return cell["ratios"].get(f"{ours} / {peer}", {}).get("decode_tokens_per_s", {}).get("median")


def fraction(cell, system, name):
    return cell["systems"].get(system, {}).get(name)


def limits(cell, large):
    """Against what the machine can do."""
    for ours in (name for name in cell["systems"] if name.startswith("ours")):
        if large and cell["batch"] >= 32:
            yield at_least(f"{ours}: decode, arithmetic limit",
                           fraction(cell, ours, "decode_arithmetic_fraction"), 0.8)
            yield at_least(f"{ours}: prefill, arithmetic limit",
                           fraction(cell, ours, "prefill_arithmetic_fraction"), 0.8)
        if large and cell["batch"] == 1:
            yield at_least(f"{ours}: decode, bandwidth limit",
                           fraction(cell, ours, "decode_bandwidth_fraction"), 0.9)
        if not large and cell["threads"] == 1:
            yield at_most(f"{ours}: decode step / its kernels alone",
                          fraction(cell, ours, "step_over_kernels"), 2.0)


def peers(cell, large):
    """Against others."""
    fp32, bf16, bf16dot = "ours f32", "ours bf16", "ours bf16dot"
    if large and cell["batch"] == 32:
        yield at_least("ours f32 / Transformers f32", ratio(cell, fp32, "transformers f32"), 3.0)
        yield at_least("ours bf16dot / Transformers f32",
                       ratio(cell, bf16dot, "transformers f32"), 6.0)
    if not large and cell["batch"] == 1:
        yield at_least("ours f32 / Transformers f32", ratio(cell, fp32, "transformers f32"), 20.0)
    if cell["batch"] >= 8:
        yield at_least("ours f32 / llama.cpp F32", ratio(cell, fp32, "llama.cpp F32"), 4.0)
        yield at_least("ours bf16 / llama.cpp F16", ratio(cell, bf16, "llama.cpp F16"), 3.0)
    if cell["batch"] == 1:
        yield at_least("ours f32 / llama.cpp F32", ratio(cell, fp32, "llama.cpp F32"), 1.0)
        yield at_least("ours bf16 / llama.cpp F16", ratio(cell, bf16, "llama.cpp F16"), 1.0)


def judge(cell, large):
    """large: the model does not fit the caches (30 M parameters and more)."""
    return [check for check in [*limits(cell, large), *peers(cell, large)] if check is not None]
