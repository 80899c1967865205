"""One peer as a process: a line of JSON {"batch", "prompt", "new"} in, a line of figures out.

  peer.py transformers FOLDER float32|bfloat16 THREADS
  peer.py llama.cpp FILE.gguf - THREADS

Figures: "prefill_s" until every sequence has its first token, "first_token_s" until the first one
has, "decode_s" from the end of the prefill until every sequence has `new` tokens, "peak_mib" the
greatest resident memory while that ran. Prompts are random, tokens are the likeliest ones.
"""

import ctypes
import json
import sys
import time


def prompts_of(vocab, batch, prompt):
    import numpy
    return numpy.random.default_rng(batch).integers(vocab, size=(batch, prompt))


def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_mib():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


class Transformers:
    """generate() as people call it: KV cache, SDPA attention, greedy, all rows of one length."""

    def __init__(self, path, dtype, threads):
        import torch
        import transformers
        torch.set_num_threads(threads)
        self.torch = torch
        self.criteria = transformers.StoppingCriteria
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def run(self, batch, prompt, new):
        torch, times = self.torch, []

        class Clock(self.criteria):  # called when each token of all rows has been chosen
            def __call__(self, ids, scores, **_):
                times.append(time.perf_counter())
                return torch.zeros(ids.shape[0], dtype=torch.bool)

        ids = torch.from_numpy(prompts_of(self.model.config.vocab_size, batch, prompt))
        with torch.inference_mode():
            start = time.perf_counter()
            out = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True,
                max_new_tokens=new, stopping_criteria=[Clock()])
        assert out.shape == (batch, prompt + new) and len(times) == new
        return {"prefill_s": times[0] - start, "first_token_s": times[0] - start,
                "decode_s": times[-1] - times[0], "first_tokens": out[:, prompt].tolist()}


class LlamaCpp:
    """llama_decode() over all sequences at once, one row of logits for each, NumPy's argmax.

    Batches of at most 2,048 tokens, as llama.cpp's own benchmarks; everything else is its default:
    flash attention where it is supported, keys and values in fp16.
    """

    BATCH = 2048

    def __init__(self, path, _, threads):
        import llama_cpp
        import numpy
        self.api, self.numpy, self.threads = llama_cpp, numpy, threads
        self.silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silence, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.version = (f"llama-cpp-python {llama_cpp.__version__}, "
                        + llama_cpp.llama_print_system_info().decode().strip())

    def run(self, batch, prompt, new):
        api = self.api
        parameters = api.llama_context_default_params()
        each = -(-(prompt + new) // 256) * 256
        parameters.n_ctx = each * batch
        parameters.n_batch = self.BATCH
        parameters.n_seq_max = batch
        parameters.n_threads = parameters.n_threads_batch = self.threads
        context = api.llama_init_from_model(self.model, parameters)
        if not context:
            raise RuntimeError("llama.cpp makes no context")
        try:
            return self.generate(context, batch, prompt, new)
        finally:
            api.llama_free(context)

    def decode(self, context, token, position, sequence, logits):
        """Four arrays, a value for each row. The likeliest tokens of the rows that want logits."""
        numpy, api = self.numpy, self.api
        count = len(token)
        sequence = numpy.ascontiguousarray(sequence, numpy.int32)
        arrays = [numpy.ascontiguousarray(token, numpy.int32),
                  numpy.ascontiguousarray(position, numpy.int32), numpy.ones(count, numpy.int32),
                  sequence.ctypes.data + numpy.arange(count, dtype=numpy.uint64) * 4,
                  numpy.ascontiguousarray(logits, numpy.int8)]
        rows = api.llama_batch(n_tokens=count)
        for name, array in zip(("token", "pos", "n_seq_id", "seq_id", "logits"), arrays):
            setattr(rows, name, ctypes.cast(array.ctypes.data, type(getattr(rows, name))))
        if api.llama_decode(context, rows) != 0:
            raise RuntimeError("llama_decode failed")
        wanted = int(arrays[-1].sum())
        if wanted == 0:
            return []
        found = numpy.ctypeslib.as_array(api.llama_get_logits(context), (wanted, self.vocab))
        return found.argmax(axis=1).tolist()

    def generate(self, context, batch, prompt, new):
        numpy = self.numpy
        token = prompts_of(self.vocab, batch, prompt).reshape(-1)
        position = numpy.tile(numpy.arange(prompt), batch)
        sequence = numpy.repeat(numpy.arange(batch), prompt)
        start = time.perf_counter()
        first, last = None, []
        for begin in range(0, len(token), self.BATCH):
            part = slice(begin, begin + self.BATCH)
            last += self.decode(context, token[part], position[part], sequence[part],
                                position[part] == prompt - 1)
            if first is None and last:
                first = time.perf_counter()
        prefilled, first_tokens = time.perf_counter(), last
        sequences, ones = numpy.arange(batch), numpy.ones(batch)
        for step in range(prompt, prompt + new - 1):
            last = self.decode(context, last, numpy.full(batch, step), sequences, ones)
        return {"prefill_s": prefilled - start, "first_token_s": first - start,
                "decode_s": time.perf_counter() - prefilled, "first_tokens": first_tokens}


def main():
    kind, path, dtype, threads = sys.argv[1:]
    peer = {"transformers": Transformers, "llama.cpp": LlamaCpp}[kind](path, dtype, int(threads))
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    print(json.dumps({"version": peer.version}), file=answers, flush=True)
    warm = None
    for line in sys.stdin:
        cell = json.loads(line)
        if warm != cell["batch"]:
            peer.run(cell["batch"], 8, 3)
            warm = cell["batch"]
        reset_peak()
        figures = peer.run(**cell)
        print(json.dumps({**figures, "peak_mib": peak_mib()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
