"""peer_generate.py FOLDER BATCHES PROMPT NEW: Transformers' generate() on the first GPU.

bf16, greedy, SDPA, its KV cache; one batch of equal lengths, a warm-up and two rounds. JSON:
{"version", "rows": [{"batch", "prompt_tokens", "new_tokens", "prefill_tokens_per_s",
"decode_tokens_per_s"}]}.
Exit 4 where torch, transformers or the device are missing."""

import json
import sys
import time

ROUNDS = 2


def round_of(torch, criteria, model, batch, prompt, new):
    """Seconds until every row has its first token, and from there to the end."""
    times = []

    class Clock(criteria):  # called when each token of all rows has been chosen
        def __call__(self, ids, scores, **_):
            torch.cuda.synchronize()
            times.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

    ids = torch.randint(model.config.vocab_size, (batch, prompt), device="cuda")
    torch.cuda.synchronize()
    start = time.perf_counter()
    out = model.generate(ids,
                         attention_mask=torch.ones_like(ids),
                         do_sample=False,
                         use_cache=True,
                         max_new_tokens=new,
                         min_new_tokens=new,
                         stopping_criteria=[Clock()])
    if out.shape != (batch, prompt + new) or len(times) != new:
        raise RuntimeError(f"generate gave {tuple(out.shape)}")
    return times[0] - start, times[-1] - times[0]


def main(folder, batches, prompt, new):
    try:
        import torch
        import transformers
    except ImportError as error:
        print(error, file=sys.stderr)
        return 4
    if not torch.cuda.is_available():
        print("torch sees no CUDA device", file=sys.stderr)
        return 4
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa").to("cuda").eval()
    rows = []
    with torch.inference_mode():
        for batch in batches:
            measured = [
                round_of(torch, transformers.StoppingCriteria, model, batch, prompt, new)
                for _ in range(1 + ROUNDS)
            ][1:]
            prefill, decode = min(m[0] for m in measured), min(m[1] for m in measured)
            rows.append({
                "batch": batch, "prompt_tokens": prompt, "new_tokens": new,
                "prefill_tokens_per_s": batch * prompt / prefill,
                "decode_tokens_per_s": batch * (new - 1) / decode
            })
    print(
        json.dumps({
            "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "rows": rows
        }))
    return 0


if __name__ == "__main__":
    sys.exit(
        main(sys.argv[1], [int(b) for b in sys.argv[2].split(",")], int(sys.argv[3]),
             int(sys.argv[4])))
