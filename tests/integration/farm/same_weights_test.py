"""What the results must not depend on, and what they must: the hash of the final weights."""

import unittest

import farm


class SameWeights(farm.FarmTest):
    def same(self, name, *overrides):
        run = self.run_farm(name, *overrides)
        self.assertEqual(run.hash(), self.reference().hash())
        return run

    def test_the_reference_run_is_sound_and_learns_from_differing_rewards(self):
        run = self.reference()
        summary = run.summary()
        self.assertEqual(summary["mismatched_tokens"], 0)
        self.assertGreater(summary["tokens"]["audited"], 0)
        self.assertEqual(summary["staleness_max"], 0)
        self.assertEqual(summary["heldout_overlap"], 0)
        self.assertTrue(summary["ledger"]["balanced"])
        self.assert_sound(run)
        # Without differing rewards all gradients of the second phase would be zero, and equal
        # hashes would say little.
        norms = [line["learner"]["gradient_norm"] for line in run.metrics() if line["phase"] == "rl"]
        self.assertEqual(len(norms), 6)
        self.assertTrue(all(norm > 0 for norm in norms), norms)

    def test_one_actor(self):
        self.same("one-actor", "actors.count=1")

    def test_three_actors_of_other_shape(self):
        self.same("three-actors", "actors.count=3", "actors.max_batch=7", "actors.kv_pages=9",
                  "actors.prefill_chunk_tokens=5", "actors.upload_batch=3")

    def test_two_learner_ranks(self):
        run = self.same("two-ranks", "learner.ranks=2")
        self.assert_sound(run)

    def test_ranks_with_shards_and_with_and_without_overlap(self):
        run = self.same("shards", "learner.ranks=2", "learner.zero=1")
        self.assertTrue(all(line["learner"]["comm_reduce_ms"] > 0 for line in run.metrics()))
        self.same("shards-four", "learner.ranks=4", "learner.threads=1", "learner.zero=1", "learner.overlap=false",
                  "checkpoint.background=false")
        run = self.same("no-overlap", "learner.ranks=2", "learner.overlap=false", "learner.bucket_bytes=262144")
        self.assertTrue(all(line["learner"]["comm_hidden_share"] == 0 for line in run.metrics()))

    def test_one_learner_thread(self):
        self.same("one-thread", "learner.threads=1")

    def test_portable_kernels(self):
        self.same("portable", "engine.kernels=portable")

    def test_avx2_kernels(self):
        with open("/proc/cpuinfo") as info:
            if " avx2" not in info.read():
                self.skipTest("this CPU has no AVX2")
        self.same("avx2", "engine.kernels=avx2")

    def test_another_seed_gives_other_weights(self):
        self.assertNotEqual(self.run_farm("seed", "run.seed=2").hash(), self.reference().hash())


if __name__ == "__main__":
    unittest.main()
