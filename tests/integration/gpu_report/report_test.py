"""tests/gpu_report as a command: order, budget, going on, failures, exit codes."""

import signal
import unittest

import stage

PLAYERS = ("bootstrap", "cmake", "gpu_tests", "gpu_learner_tests", "compute-sanitizer", "thresher",
           "gpu_bench", "python")


class ReportTest(unittest.TestCase):
    def setUp(self):
        self.stage = stage.Stage()
        self.addCleanup(self.stage.close)

    def names(self, calls):
        """Who was called in which order, without those who only say what the machine is."""
        return [
            name for name, words, _ in calls
            if name in PLAYERS and words != ["device"] and words[0] != "-c"
        ]


class Order(ReportTest):
    def test_correctness_comes_before_the_quickstart_and_that_before_benchmarks(self):
        code, said, calls = self.stage.report()
        self.assertEqual(code, 0, said)
        order = self.names(calls)
        self.assertEqual(order[:2], ["bootstrap", "cmake"])
        self.assertEqual(order[2:9], [*["gpu_tests"] * 5, "gpu_learner_tests", "gpu_tests"])
        self.assertEqual(order[9:11], ["compute-sanitizer"] * 2)
        self.assertEqual([words[0] for name, words, _ in calls if name == "thresher"][:3],
                         ["run", "replay", "audit"])
        self.assertEqual(order[11:14], ["thresher"] * 3)
        self.assertEqual(order[14:20], ["gpu_bench"] * 6)
        self.assertNotIn("gpu_tests", order[14:])

    def test_the_large_checks_are_asked_for(self):
        _, _, calls = self.stage.report("--piece", "engine", "--piece", "learner")
        asked = [env for name, _, env in calls if name == "gpu_tests"]
        self.assertIn({"THRESHER_MIXES": "2000"}, asked)
        self.assertIn({"THRESHER_TOKENS": "1000000"}, asked)

    def test_every_suite_is_in_exactly_one_piece(self):
        _, _, calls = self.stage.report("--piece", "kernels", "--piece", "engine", "--piece",
                                        "learner")
        filters = [words[0].split("=")[1] for name, words, _ in calls if name == "gpu_tests"]
        self.assertTrue(filters[0].startswith("*-"), filters)
        self.assertEqual(sorted(filters[0][2:].split(":")),
                         sorted(":".join(filters[1:]).split(":")))

    def test_both_sides_of_the_quickstart_are_on_the_gpu(self):
        _, _, calls = self.stage.report("--piece", "quickstart")
        words = next(words for name, words, _ in calls if name == "thresher")
        self.assertIn("actors.device=cuda", words)
        self.assertIn("learner.device=cuda", words)

    def test_one_piece_is_run_alone_and_the_page_is_left_alone(self):
        code, said, calls = self.stage.report("--piece", "kernels")
        self.assertEqual(code, 0, said)
        self.assertEqual(self.names(calls), ["gpu_tests"])
        self.assertEqual(self.stage.page.read_text(), stage.PAGE)

    def test_an_unknown_piece_is_refused_with_those_there_are(self):
        code, said, calls = self.stage.report("--piece", "kernel")
        self.assertEqual(code, 2)
        self.assertIn("kernels, engine, learner", said)
        self.assertEqual(self.names(calls), [])


class NoDevice(ReportTest):
    def test_without_a_driver_nothing_is_built(self):
        self.stage.remove("nvidia-smi")
        self.stage.remove("gpu_tests")
        code, said, calls = self.stage.report()
        self.assertEqual(code, 3)
        self.assertIn("No such file", said)
        self.assertEqual(self.names(calls), [])

    def test_the_reason_is_that_of_the_tests_where_they_are_built(self):
        self.stage.play("nvidia-smi", code=9, log="NVIDIA-SMI has failed")
        self.stage.play("gpu_tests", out=stage.gtest_output(0, skipped="no driver; install one"))
        code, said, _ = self.stage.report()
        self.assertEqual(code, 3)
        self.assertIn("no driver; install one", said)

    def test_a_device_that_no_kernel_runs_on_ends_it_before_the_checks(self):
        self.stage.play("gpu_bench",
                        "device",
                        code=3,
                        log="device 0 is older than compute capability 8.0")
        code, said, calls = self.stage.report()
        self.assertEqual(code, 3)
        self.assertIn("older than compute capability 8.0", said)
        self.assertEqual(self.names(calls), ["bootstrap", "cmake"])


class GoingOn(ReportTest):
    def test_what_stands_is_not_run_again(self):
        self.stage.report("--piece", "build", "--piece", "kernels", "--piece", "engine")
        code, said, calls = self.stage.report("--resume", "--piece", "kernels", "--piece", "engine")
        self.assertEqual(code, 0, said)
        self.assertEqual(self.names(calls), [])
        self.assertIn("kernels/all: passed before", said)

    def test_a_piece_by_name_is_run_anew_and_others_keep_their_results(self):
        self.stage.report("--piece", "kernels", "--piece", "engine")
        _, _, calls = self.stage.report("--piece", "kernels")
        self.assertEqual(self.names(calls), ["gpu_tests"])
        self.assertEqual(self.stage.status("engine/row-purity"), "passed")

    def test_another_device_begins_again(self):
        self.stage.report("--piece", "kernels")
        self.stage.play("nvidia-smi", out=stage.DEVICE.replace("H200", "H100"))
        _, _, calls = self.stage.report("--resume", "--piece", "kernels")
        self.assertEqual(self.names(calls), ["gpu_tests"])

    def test_what_crashed_is_run_again_and_what_failed_is_not(self):
        self.stage.play("gpu_tests",
                        "DeviceEngine",
                        out=stage.gtest_output(failed=["DeviceEngine.Breaks"]))
        self.stage.play("gpu_tests", "DeviceRowPurity", signal=int(signal.SIGSEGV))
        code, _, _ = self.stage.report("--piece", "engine")
        self.assertEqual(code, 1)
        self.assertEqual(self.stage.status("engine/row-purity"), "crashed")
        self.stage.play("gpu_tests", "DeviceRowPurity", out=stage.gtest_output())
        code, said, calls = self.stage.report("--resume", "--piece", "engine")
        self.assertEqual(code, 1)
        self.assertEqual(self.names(calls), ["gpu_tests"])
        self.assertIn("engine/engine: failed before", said)
        self.assertEqual(self.stage.status("engine/row-purity"), "passed")

    def test_the_page_can_be_written_where_there_is_no_device(self):
        self.stage.report("--piece", "kernels")
        self.stage.remove("nvidia-smi")
        code, said, _ = self.stage.report("--piece", "write")
        self.assertEqual(code, 0, said)
        self.assertIn("NVIDIA H200", self.stage.page.read_text())


class Budget(ReportTest):
    def test_what_there_is_no_time_for_is_said_and_the_page_is_written(self):
        code, said, calls = self.stage.report("--budget", "6")
        self.assertEqual(code, 75, said)
        self.assertEqual(self.names(calls), [])
        self.assertIn("no time left in this call", self.stage.page.read_text())


class Failures(ReportTest):
    def test_a_failed_test_is_named_and_the_rest_goes_on(self):
        self.stage.play("gpu_tests",
                        "*-",
                        out=stage.gtest_output(failed=["CudaHead.Breaks"]),
                        code=1)
        code, _, calls = self.stage.report()
        self.assertEqual(code, 1)
        self.assertEqual(self.stage.detail("kernels/all"), "1 failed: CudaHead.Breaks")
        self.assertIn("thresher", self.names(calls))
        self.assertIn("CudaHead.Breaks", self.stage.page.read_text())

    def test_a_crash_is_told_from_a_failure(self):
        self.stage.play("gpu_tests",
                        "*-",
                        out="[ RUN      ] CudaHead.Dies",
                        signal=int(signal.SIGABRT))
        self.stage.report("--piece", "kernels")
        self.assertEqual(self.stage.status("kernels/all"), "crashed")
        self.assertIn("SIGABRT", self.stage.detail("kernels/all"))

    def test_a_build_that_fails_leaves_the_rest_not_run(self):
        self.stage.play("cmake", code=1, log="error: no such instruction")
        self.stage.remove("gpu_tests")
        self.stage.remove("gpu_bench")
        self.stage.remove("thresher")
        code, _, calls = self.stage.report()
        self.assertEqual(code, 1)
        self.assertIn("no such instruction", self.stage.detail("build/tests"))
        self.assertEqual(self.stage.detail("kernels/all"), "gpu_tests is not built")
        self.assertNotIn("compute-sanitizer", self.names(calls))

    def test_other_weights_than_the_cpus_are_a_failure(self):
        other = "0" * 32
        self.stage.play("thresher", "run", out=stage.run_output(final=other))
        code, _, _ = self.stage.report("--piece", "quickstart")
        self.assertEqual(code, 1)
        self.assertIn(f"final weights {other}, of the CPU {stage.HASH}",
                      self.stage.detail("quickstart/run"))

    def test_a_token_that_differs_is_a_failure(self):
        self.stage.play("thresher", "run", out=stage.run_output(mismatched=1))
        code, _, _ = self.stage.report("--piece", "quickstart")
        self.assertEqual(code, 1)
        self.assertIn("1 of 310232", self.stage.detail("quickstart/run"))

    def test_without_compute_sanitizer_it_is_recorded_as_not_run(self):
        self.stage.remove("compute-sanitizer")
        code, _, _ = self.stage.report("--piece", "sanitizer")
        self.assertEqual(code, 0)
        self.assertIn("not on this machine", self.stage.detail("sanitizer/memcheck"))

    def test_a_hazard_is_a_failure_and_a_refused_device_is_not_run(self):
        self.stage.play("compute-sanitizer",
                        "racecheck",
                        out=stage.SANITIZED.format("RACECHECK", "").replace(
                            "0 \n", "2 hazards displayed (2 errors, 0 warnings)\n"),
                        code=9)
        self.stage.play("compute-sanitizer",
                        "memcheck",
                        out="========= Error: Device not supported.",
                        code=1)
        code, _, _ = self.stage.report("--piece", "sanitizer")
        self.assertEqual(code, 1)
        self.assertIn("2 hazards", self.stage.detail("sanitizer/racecheck"))
        self.assertEqual(self.stage.status("sanitizer/memcheck"), "not run")

    def test_output_that_is_not_understood_is_a_failure(self):
        self.stage.play("gpu_bench", "gemm", out="{")
        code, _, _ = self.stage.report("--piece", "bench")
        self.assertEqual(code, 1)
        self.assertIn("not understood", self.stage.detail("bench/gemm"))
        self.assertEqual(self.stage.status("bench/head"), "passed")

    def test_a_page_without_markers_is_left_alone(self):
        self.stage.page.write_text("by hand\n")
        code, said, _ = self.stage.report()
        self.assertEqual(code, 2)
        self.assertIn("gpu report: begin", said)
        self.assertEqual(self.stage.page.read_text(), "by hand\n")


if __name__ == "__main__":
    unittest.main()
