"""What `thresher check` says a learner rank needs is what it needs, within 15 %."""

import re
import unittest

import farm

SMALL = ("supervised.steps=4", "supervised.warmup_steps=0", "rl.steps=3", "eval.items=2", "eval.samples=2", "checkpoint.every=2", "actors.count=1")
# Masters, moments, sums of gradients, and the copy for a checkpoint.
OPTIMIZER = SMALL + ("model.width=512", "model.heads=8", "model.kv_heads=4", "model.head_dim=64", "model.ffn_width=2048",
                     "supervised.batch=16", "rl.groups=4")
# Leaves whose sequences fill micro-batches of 1,024 rows.
ACTIVATIONS = SMALL + ("model.layers=8", "model.width=64", "model.ffn_width=1024", "supervised.batch=1024", "rl.groups=64",
                       "rl.group_size=16", "learner.micro_batch_tokens=1024", "supervised.learning_rate=1e-3")
# 16-bit weights and their masters, a reference policy, layers computed again.
SIXTEEN_BIT = SMALL + ("model.dtype=bfloat16", "model.layers=4", "model.width=256", "model.ffn_width=1536",
                       "objective.kl=0.01", "learner.recompute_activations=true", "supervised.batch=256",
                       "learner.micro_batch_tokens=512", "checkpoint.background=false", "rl.groups=16",
                       "rl.group_size=16", "supervised.learning_rate=1e-3")
WIDEST = 0.15


def peak_bytes(pid):
    """Most memory that the process had at once; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Memory(farm.FarmTest):
    def foreseen(self, overrides):
        """Bytes of rank 0, and where they go."""
        words = ["check", farm.TINY]
        for text in (*overrides, "learner.memory_bytes=1"):
            words += ["--set", text]
        done = self.command(*words)
        self.assertEqual(done.code, 2, done)
        found = re.search(r"learner.memory_bytes: value 1; allowed: at least (\d+) for a learner rank: (.*)", done.err)
        self.assertTrue(found, done)
        return int(found[1]), found[2]

    def measured(self, name, overrides, ranks=1):
        launched = self.start(name, *overrides)
        peaks = {}
        while launched.alive():
            for pid in launched.run.processes("learner"):
                peaks[pid] = max(peaks.get(pid, 0), peak_bytes(pid))
        result = launched.finish()
        self.assertEqual(result.code, 0, f"{result}{self.logs(launched.run)}")
        self.assertEqual(len(peaks), ranks)
        return max(peaks.values())

    def compare(self, name, overrides, ranks=1):
        foreseen, parts = self.foreseen((*overrides, f"learner.ranks={ranks}"))
        measured = self.measured(name, (*overrides, f"learner.ranks={ranks}"), ranks)
        ratio = foreseen / measured
        print(f"{name}: foreseen {foreseen >> 20} MiB, measured {measured >> 20} MiB, ratio {ratio:.3f}", flush=True)
        self.assertLess(abs(ratio - 1), WIDEST, f"{foreseen} foreseen, {measured} measured: {parts}")
        return {name.strip(): int(size) for name, size in re.findall(r"([a-zA-Z ]+) (\d+)", parts)}

    def test_where_the_optimiser_dominates(self):
        parts = self.compare("optimizer", OPTIMIZER)
        self.assertGreater(parts["optimiser moments"], 20 * parts["activations"] / 10)

    def test_with_the_penalty_in_the_reward(self):
        self.compare("reward-penalty", (*ACTIVATIONS, "objective.kl=0.01", "objective.kl_in=reward"))

    def test_where_activations_dominate(self):
        parts = self.compare("activations", ACTIVATIONS)
        self.assertGreater(parts["activations"], sum(parts.values()) / 2)

    def test_with_sixteen_bits_a_reference_and_no_background(self):
        self.compare("sixteen", SIXTEEN_BIT)

    def test_of_adapters_and_of_what_is_frozen(self):
        whole = self.foreseen(OPTIMIZER)[0]
        freeze = "learner.freeze=[model.layers.0.*, model.layers.1.mlp.*]"
        for name, overrides in (("adapters", ("lora.rank=8", "lora.phase=all")), ("later", ("lora.rank=8",)), ("frozen", (freeze,))):
            parts = self.compare(name, (*OPTIMIZER, *overrides))
            if name != "later":  # whose first phase trains everything
                self.assertLess(parts["optimiser moments"], whole / 4, parts)
        self.assertLess(self.foreseen((*OPTIMIZER, "lora.rank=8", "lora.phase=all"))[0], 0.8 * whole)

    def test_with_shards_of_the_moments(self):
        for background in ("true", "false"):
            parts = self.compare(f"shards-{background}", (*OPTIMIZER, "learner.zero=1", f"checkpoint.background={background}"),
                                 ranks=2)
            self.assertLess(parts["optimiser moments"], 1.05 * parts["weights and their packed forms"] / 2)

    def test_with_a_critic(self):
        for kind, preset in (("own", "ppo"), ("shared", "vtrace_impala")):
            self.compare(kind, (*OPTIMIZER, f"objective.preset={preset}"))

    def test_a_run_that_needs_more_than_the_limit_is_refused(self):
        needed, _ = self.foreseen(())
        done = self.command("run", farm.TINY, "--dir", self.scratch / "refused", "--set",
                            f"learner.memory_bytes={needed - 1}")
        self.assertEqual(done.code, 2, done)
        self.assertIn("learner.micro_batch_tokens", done.err, "the remedies are named")
        self.assertFalse((self.scratch / "refused").exists())
        self.assertEqual(self.command("check", farm.TINY, "--set", f"learner.memory_bytes={needed}").code, 0)

    def test_a_run_that_needs_more_than_the_machine_is_refused(self):
        done = self.command("check", farm.TINY, "--set", "learner.micro_batch_tokens=16777216", "--set",
                            "supervised.batch=65536", "--set", "model.layers=60", "--set", "model.ffn_width=30000",
                            "--set", "learner.threads=64", "--set", "learner.grad_leaves=64")
        self.assertEqual(done.code, 2, done)
        self.assertIn("(the machine's ", done.err)


if __name__ == "__main__":
    unittest.main()
