"""Long sequences that are not finished when everything stops: they are gone on with, not begun again."""

import signal
import unittest

import farm

TOKENS = 2304    # of each sequence
INTERVAL = 512   # actors.partial_tokens
SAMPLES = 4


class Unfinished(farm.FarmTest):
    # Nearly always the likeliest token: an untrained model then repeats itself and hardly ever ends. All
    # samples are begun at once, so a step of an engine is a token of each of its sequences; the model is
    # large enough for them to take seconds.
    OVERRIDES = ("supervised.steps=0", "rl.steps=1", "rl.groups=2", "rl.group_size=2", "eval.items=0",
                 "sampling.temperature=0.05", f"sampling.max_new_tokens={TOKENS}", "model.context=2400",
                 "learner.micro_batch_tokens=4096", "model.width=320", "model.heads=4", "model.head_dim=80",
                 "model.ffn_width=1280", "model.layers=6", f"actors.partial_tokens={INTERVAL}", "actors.max_batch=2",
                 "checkpoint.every=1", "net.heartbeat_ms=50")

    def drawn(self, run):
        """Tokens of training samples that live actors say they have drawn."""
        status = run.status()
        return sum(actor["counters"].get("generated_tokens", 0) for actor in status["actors"]) if status else 0

    def gone_on_with(self, name, *overrides):
        """The run, finished, with the result of the undisturbed one; and the tokens drawn at last."""
        run = self.run_farm(name, *overrides)
        self.assertEqual(run.hash(), self.reference().hash())
        self.assert_sound(run)
        return run, run.summary()["time_split"]["actors"]["generated_tokens"]

    def total(self):
        """Tokens of all sequences."""
        summary = self.reference().summary()
        self.assertEqual(summary["tokens"]["generated_twice"], 0)
        self.assertEqual(summary["tokens"]["continued"], 0)
        self.assertGreaterEqual(summary["tokens"]["generated"], SAMPLES * 2048)
        return summary["tokens"]["generated"]

    def test_an_orderly_stop_costs_hardly_a_token(self):
        total = self.total()
        launched = self.start("stopped")
        self.wait_until(lambda: self.drawn(launched.run) > SAMPLES * TOKENS / 2, "half of the tokens", launched)
        farm.kill(launched.process.pid, signal.SIGINT)
        result = launched.finish(60)
        self.assertEqual(result.code, 75, f"{result}{self.logs(launched.run)}")
        run, drawn = self.gone_on_with("stopped")
        tokens = run.summary()["tokens"]
        self.assertGreater(tokens["continued"], 0.4 * total)
        self.assertLess(tokens["generated_twice"], 0.02 * total)
        print(f"stopped: {total} tokens in all, {tokens['continued']} continued, {drawn:.0f} drawn since, "
              f"{tokens['generated_twice']} twice", flush=True)
        # Not only said to be so: what was continued and what was drawn since are the whole.
        self.assertLessEqual(tokens["continued"] + drawn, total)

    def test_a_death_of_everything_costs_at_most_an_interval_of_each_sequence(self):
        total = self.total()
        # The actor dies after so many steps of its engine: so many tokens of each sequence are drawn by then.
        steps, one = 1500, ("actors.count=1", f"actors.max_batch={SAMPLES}", "actors.max_restarts=0")
        launched = self.start("killed", *one, faults=f"actor-0:kill@decode={steps}")
        self.wait_until(lambda: "SIGKILL" in farm.text_of(launched.err), "the death of the actor", launched)
        for pid in (launched.process.pid, *farm.processes_of(launched.run.folder)):
            farm.kill(pid)
        launched.finish()
        self.wait_until(lambda: not farm.processes_of(launched.run.folder), "the end of its processes", timeout=10)
        run, drawn = self.gone_on_with("killed", *one)
        tokens = run.summary()["tokens"]
        self.assertGreater(tokens["continued"], SAMPLES * INTERVAL)
        lost = SAMPLES * steps + drawn - total
        print(f"killed: {lost:.0f} of {SAMPLES * steps} tokens lost, {tokens['generated_twice']} told", flush=True)
        self.assertLessEqual(lost, SAMPLES * INTERVAL, tokens)
        self.assertLessEqual(tokens["generated_twice"], lost)


if __name__ == "__main__":
    unittest.main()
