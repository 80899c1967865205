"""The generated part of docs/gpu.md, and what programs print as figures."""

import json
import os
import pathlib
import sys
import tempfile
import unittest

import stage

sys.path.insert(0, str(stage.ROOT / "tests" / "gpu" / "report"))

import figures  # noqa: E402
import page  # noqa: E402
import parse  # noqa: E402
import plan  # noqa: E402
import random_model  # noqa: E402
import shapes  # noqa: E402
import state  # noqa: E402
from steps import Failed, NotRun  # noqa: E402

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden.md"
DEVICE = {
    "name": "NVIDIA H200", "memory": "143771 MiB", "driver": "580.159.04", "capability": "9.0",
    "clock": "1980 MHz"
}


class PageTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.results = state.Results(self.folder / "results.json")
        self.pieces = plan.Plan(stage.ROOT, self.folder, self.folder, {}, "key").pieces()

    def put(self, name, status="passed", seconds=1.0, detail="", figures=None, device=DEVICE):
        self.results.put(
            name, {
                "status": status, "seconds": seconds, "detail": detail, "date": "2026-11-21",
                "figures": figures or {}, "key": "key", "device": device,
                "revision": "0123456789ab", "command": [], "environment": {}
            })

    def fill(self):
        """A report in which something of every kind happened."""
        self.put("build/programs", seconds=171.2, figures={"version": "thresher 0.9 (release)"})
        self.put("build/tests", seconds=60.4)
        self.put("build/device", figures={"multiprocessors": 132})
        self.put("kernels/all", "failed", 12.3, "1 failed: CudaHead.Breaks",
                 {"passed": 41, "failed": ["CudaHead.Breaks"], "skipped": {}})
        self.put("engine/engine", figures={"passed": 7, "failed": [], "skipped": {}})
        self.put("engine/row-purity",
                 seconds=14.6,
                 figures={
                     "passed": 1, "failed": [], "skipped": {},
                     "seen": ["2000 mixes of up to 512, 0 differ"]
                 })
        self.put("learner/nccl",
                 figures={"passed": 2, "failed": [], "skipped": {"no libnccl | none": 3}})
        for tool in ("memcheck", "racecheck"):
            self.put(f"sanitizer/{tool}", "not run", 0.0,
                     "compute-sanitizer is not on this machine")
        self.put("quickstart/run",
                 seconds=48.0,
                 figures={
                     "final weights": stage.HASH, "mismatched": 0, "audited tokens": 310232,
                     "pass@1": ["0.181", "0.393"]
                 })
        self.put("quickstart/replay", "timed out", 40.0, "after 40 s: it said nothing")
        self.put("bench/limits",
                 figures=json.loads(
                     stage.bench_output(("copy", "GB/s", 4300.0, {}),
                                        ("matrix products, bf16", "TFLOP/s", 790.0, {}))))
        self.put("bench/gemm",
                 figures=json.loads(
                     stage.bench_output(("0.5B, 1 token", "GB/s of weights", 2150.0, {
                         "limit": {"name": "GB/s copied", "median": 4300.0}, "ratio": 0.5,
                         "against": {"name": "cuBLASLt", "price": 0.031}
                     }), ("0.5B, 2048 tokens", "TFLOP/s", 395.0, {
                         "limit": {"name": "TFLOP/s", "median": 790.0}, "ratio": 0.5,
                         "against": {"name": "cuBLASLt", "price": 0.2}
                     }))) | {"notes": ["cuBLASLt: libcublasLt.so.13"]})
        self.put("bench/engine-0.5B-1024-1,16,64", figures=json.loads(stage.engine_output((1, 64))))
        self.put(
            "bench/transformers-0.5B",
            figures={"rows": [{"batch": 1, "prompt_tokens": 1024, "decode_tokens_per_s": 40.0}]})
        self.put("bench/model-8B", "not run", 0.0, "no time left in this call; go on with --resume")

    def text(self):
        return page.generated(
            {
                "command": "tests/gpu_report --resume", "device": DEVICE,
                "versions": {"CUDA toolkit": "13.0.88", "torch": "2.11.0+cu130"}
            }, self.pieces, self.results)


class Page(PageTest):
    def test_the_page_is_the_golden_one(self):
        """THRESHER_UPDATE_GOLDEN=1 writes it."""
        self.fill()
        if os.environ.get("THRESHER_UPDATE_GOLDEN"):
            GOLDEN.write_text(self.text() + "\n")
        self.assertEqual(self.text() + "\n", GOLDEN.read_text())

    def test_what_is_written_by_hand_stays(self):
        path = self.folder / "gpu.md"
        path.write_text(stage.PAGE)
        page.put(path, "new")
        page.put(path, "newer")
        self.assertEqual(path.read_text(), stage.PAGE.replace("\nold\n", "\nnewer\n"))

    def test_the_page_of_the_project_has_the_markers(self):
        path = self.folder / "gpu.md"
        old = (stage.ROOT / "docs" / "gpu.md").read_text()
        path.write_text(old)
        page.put(path, "new")
        self.assertEqual(path.read_text().split(page.BEGIN)[0], old.split(page.BEGIN)[0])
        self.assertIn(f"{page.BEGIN}\nnew\n{page.END}", path.read_text())

    def test_results_of_other_sources_are_said(self):
        self.fill()
        self.results.get("build/tests")["key"] = "other"
        self.assertIn("not all results are of the same sources", self.text())

    def test_of_a_report_without_results_all_is_not_begun(self):
        text = self.text()
        self.assertIn("not begun: `build/programs`", text)
        self.assertNotIn("### Measured", text)


class Figures(PageTest):
    def test_decode_and_prefill_are_parts_of_the_limits_of_the_same_report(self):
        self.fill()
        rows, aims = figures.engine_rows(self.results)
        # 1,000 steps a second of 1 GB of weights and 1,040.5 positions of 24 x 2 x 2 x 64 values.
        self.assertEqual(rows[0][5], f"{100 * 1000 * (1e9 + 1040.5 * 24576) / 1e9 / 4300:.1f} %")
        head = 2 * 896 * 151936
        prompt = 1024 * (1e9 - head) + head + 2 * 24 * 14 * 64 * 1024 * 1025
        self.assertEqual(rows[0][7], f"{100 * 50000 / 1024 * prompt / 1e12 / 790:.1f} %")
        self.assertIn("25.00x", rows[0][8])
        self.assertEqual([aim.reached for aim in aims[:2]], [False, False])

    def test_strictness_is_an_aim_that_should_not_be_passed(self):
        self.fill()
        self.assertEqual([(aim.seen, aim.reached) for aim in figures.bench_aims(self.results)],
                         [(0.031, True), (0.2, False)])

    def test_random_models_have_the_parameters_of_the_real_ones(self):
        for name, parameters in (("0.5B", 494032768), ("1.5B", 1543714304), ("8B", 8030261248)):
            total = sum(size[0] * (size[1] if len(size) == 2 else 1)
                        for _, size in shapes.SHAPES[name].tensors())
            self.assertEqual(total, parameters)

    def test_no_shard_is_too_large_and_no_tensor_is_left_out(self):
        shape = shapes.SHAPES["8B"]
        shards = random_model.shards_of(shape)
        self.assertEqual([tensor for shard in shards for tensor in shard], list(shape.tensors()))
        self.assertEqual(len(shards), 4)


class Readers(unittest.TestCase):
    def test_tests_that_are_all_skipped_were_not_run(self):
        with self.assertRaisesRegex(NotRun, "no driver"):
            parse.gtest(stage.gtest_output(0, skipped="no driver"), "")

    def test_a_filter_that_matches_nothing_is_a_failure(self):
        with self.assertRaises(Failed):
            parse.gtest("Running main()\n[  PASSED  ] 0 tests.\n", "")

    def test_a_sanitizer_that_says_nothing_is_a_failure(self):
        with self.assertRaisesRegex(Failed, "no summary"):
            parse.sanitizer(stage.gtest_output(), "")

    def test_the_first_error_is_told(self):
        text = ("========= Invalid __global__ write of size 4 bytes\n"
                "========= ERROR SUMMARY: 3 errors\n")
        with self.assertRaisesRegex(Failed, "3 errors; first: Invalid __global__ write"):
            parse.sanitizer(text, "")

    def test_the_hash_of_the_cpus_run_stands_in_the_table_of_runs(self):
        readme = (stage.ROOT / "configs" / "README.md").read_text()
        self.assertEqual(parse.expected_hash(readme), stage.HASH)
        self.assertIsNone(parse.expected_hash("seed 1\n\n" + stage.HASH))

    def test_without_a_hash_to_compare_with_a_run_does_not_pass(self):
        with self.assertRaisesRegex(Failed, "names no hash"):
            parse.quickstart(None)(stage.run_output(), "")


if __name__ == "__main__":
    unittest.main()
