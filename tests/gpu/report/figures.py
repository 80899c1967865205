"""Results of benchmark steps as rows of tables, with the aims of the CUDA backend."""

import dataclasses

import plan
import shapes

# Aims on an H200: decode as a part of the bandwidth, prefill of the matrix rate, and so on.
DECODE_AIM = {"0.5B": 0.45, "1.5B": 0.45, "8B": 0.60}
LARGEST_BATCH_OF_AIM = 64
PREFILL_AIM, STRICTNESS_AIM, TRAINING_AIM = 0.60, 0.05, 0.45


@dataclasses.dataclass
class Aim:
    """What was seen, what is wanted; `most`: it should not be more."""

    what: str
    seen: float
    aim: float
    most: bool = False

    @property
    def reached(self):
        return self.seen <= self.aim if self.most else self.seen >= self.aim


def percent(value):
    return f"{100 * value:.1f} %"


def amount(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bench_rows(results, section):
    """[figure, value, limit, part of it] of what `gpu_bench SECTION` says in "results"."""
    rows = []
    for one in results.figures(f"bench/{section}").get("results", []):
        value = (f"{amount(one['median'])} ({amount(one['min'])} to {amount(one['max'])}) "
                 f"{one['unit']}")
        limit = one.get("limit")
        against = one.get("against")
        rows.append([
            one["name"], value, f"{amount(limit['median'])}, {limit['name']}" if limit else "",
            percent(one["ratio"]) if limit else "",
            f"{percent(against['price'])}, {against['name']}" if against else ""
        ])
    return rows


def bench_aims(results):
    for one in results.figures("bench/gemm").get("results", []):
        if "against" in one:
            yield Aim(f"strictness, {one['name']}",
                      one["against"]["price"],
                      STRICTNESS_AIM,
                      most=True)
    for one in results.figures("bench/training-1.5B").get("results", []):
        if "limit" in one:
            yield Aim(f"learner, {one['name']}", one["ratio"], TRAINING_AIM)


def limit_of(results, name):
    return next(
        (one["median"]
         for one in results.figures("bench/limits").get("results", []) if one["name"] == name),
        None)


def engine_cells(results):
    """(shape, context, row of `bench engine`, its whole output) of every cell there is."""
    for shape in shapes.SHAPES.values():
        for context, batches, _, _ in plan.CELLS:
            out = results.figures(
                f"bench/engine-{shape.name}-{context}-{','.join(map(str, batches))}")
            for row in out.get("rows", []):
                yield shape, context, row, out


def decode_bytes(shape, row, out):
    """Of one step: all weights, and keys and values of all positions, halfway through the answers."""
    element = 2 if out["kernel_set"].startswith("cuda-bf16") else 4
    positions = row["prompt_tokens"] + row["new_tokens"] / 2
    return out["weight_bytes"] + row["batch"] * positions * shape.kv_bytes_per_position(element)


def prefill_flop(shape, row, out):
    """Of one prompt: the products, the head's for its last token alone, and attention."""
    head = 2 * shape.width * shape.vocab
    prompt = row["prompt_tokens"]
    return prompt * (out["product_flop_per_token"] - head) + head + shape.attention_flop(prompt)


def peer_rate(results, shape, context, batch):
    for row in results.figures(f"bench/transformers-{shape.name}").get("rows", []):
        if row["batch"] == batch and row["prompt_tokens"] == context:
            return row["decode_tokens_per_s"]
    return None


def engine_rows(results):
    """(rows of the engine's table, its aims)."""
    bandwidth, rate = limit_of(results, "copy"), limit_of(results, "matrix products, bf16")
    rows, aims = [], []
    for shape, context, row, out in engine_cells(results):
        decode, prefill = row["decode_tokens_per_s"]["median"], row["prefill_tokens_per_s"][
            "median"]
        cell = f"{shape.name}, batch {row['batch']}, context {context}"
        of_bandwidth = of_rate = None
        if bandwidth:
            of_bandwidth = decode / row["batch"] * decode_bytes(shape, row, out) / 1e9 / bandwidth
            if row["batch"] <= LARGEST_BATCH_OF_AIM or shape.name != "8B":
                aims.append(Aim(f"decode, {cell}", of_bandwidth, DECODE_AIM[shape.name]))
        if rate:
            of_rate = prefill / row["prompt_tokens"] * prefill_flop(shape, row, out) / 1e12 / rate
            aims.append(Aim(f"prefill, {cell}", of_rate, PREFILL_AIM))
        peer = peer_rate(results, shape, context, row["batch"])
        rows.append([
            shape.name,
            str(row["batch"]),
            str(context), out["kernel_set"],
            amount(decode),
            percent(of_bandwidth) if of_bandwidth is not None else "",
            amount(prefill),
            percent(of_rate) if of_rate is not None else "",
            f"{amount(peer)} ({decode / peer:.2f}x)" if peer else ""
        ])
    return rows, aims
