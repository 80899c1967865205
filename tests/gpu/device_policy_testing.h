#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/gpu/device.h"
#include "common/model/cuda/cuda_runner.h"
#include "tests/unit/actor/engine_testing.h"
#ifdef THRESHER_CUDA_SIM
#include "tests/support/cuda_sim/cuda_sim.h"
#endif

namespace thresher::actor {

// How much a test that can go on for long does: the environment variable `name`, else `otherwise`
// (less on the simulated device).
inline int Amount(const char* name, int otherwise, [[maybe_unused]] int simulated) {
  const char* asked = std::getenv(name);
  if (asked != nullptr) return std::atoi(asked);
#if defined(THRESHER_CUDA_SIM)
  return simulated;
#else
  return otherwise;
#endif
}

// Steps of one slot: a prompt, a row that stands for its draw, and one behind that. Returns the
// last one's log-probability, which depends on the row before it if that was computed.
inline float BehindADraw(model::StepRunner& runner, const std::vector<std::int32_t>& stop,
                         std::int32_t* drawn) {
  const std::vector<std::int32_t> table = {3};
  const auto launch = [&](std::vector<std::int32_t> tokens, std::int32_t position) {
    model::StepInput step;
    for (std::int32_t token : tokens) {
      step.token.push_back(token);
      step.position.push_back(position++);
      step.slot.push_back(1);
      step.table.push_back(table);
    }
    model::RowSampling greedy;
    greedy.temperature = 0.0f;
    step.draws.push_back({step.rows() - 1, greedy, stop});
    EXPECT_TRUE(runner.Launch(step).ok());
  };
  launch({5, 9, 2}, 0);
  launch({model::kDrawnBefore}, 3);
  *drawn = runner.Collect().value()[0].token;
  EXPECT_TRUE(runner.Collect().ok());
  launch({7}, 4);
  return runner.Collect().value()[0].logprob;
}

// Tests of one policy on a device and on the host. Skips where there is no device.
class DevicePolicyTest : public EngineTest {
 protected:
  void SetUp() override {
    const auto device = gpu::OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
  }

  // An engine on the device that has `weights`, or those of this test; `runner` with its sizes.
  static Engine OnDevice(const model::ModelConfig& shape,
                         const std::shared_ptr<const model::PackedModel>& weights,
                         const EngineOptions& options, model::CudaRunnerOptions runner) {
    runner.slots = options.max_batch;
    runner.max_rows = options.max_batch + options.prefill_chunk;
    runner.pages = options.kv_pages;
    auto made = model::MakeCudaRunner(shape, runner);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    Engine engine(shape, options, std::move(made).value());
    EXPECT_TRUE(engine.SetWeights(weights, kVersion).ok());
    return engine;
  }
  static Engine OnDevice(const model::ModelConfig& shape,
                         const std::shared_ptr<const model::PackedModel>& weights,
                         const EngineOptions& options, bool graphs = true) {
    model::CudaRunnerOptions runner;
    runner.graphs = graphs;
    return OnDevice(shape, weights, options, runner);
  }
  Engine OnDevice(const EngineOptions& options, bool graphs = true) const {
    return OnDevice(shape_, weights_, options, graphs);
  }

  // Runs `options`' kernel set and kind of step.
  void ExpectNothingBehindAStop(model::CudaRunnerOptions options) const {
    options.slots = 4, options.max_rows = 68, options.pages = 60;
    const auto run = [&](const std::vector<std::int32_t>& stop, std::int32_t* drawn) {
      const auto runner = model::MakeCudaRunner(shape_, options).value();
      EXPECT_TRUE(runner->SetWeights(weights_).ok());
      return BehindADraw(*runner, stop, drawn);
    };
    std::int32_t drawn = -1, again = -1;
    const float whole = run({}, &drawn);
    EXPECT_EQ(run({drawn + 1, drawn + 2}, &again), whole);  // others end nothing
    const float ended = run({drawn + 1, drawn}, &again);
    EXPECT_EQ(again, drawn);
    EXPECT_NE(ended, whole);  // the page has no keys and values of that row
    EXPECT_EQ(run({drawn + 1, drawn + 2, drawn + 3, drawn + 4, drawn}, &again), whole);
  }

#ifdef THRESHER_CUDA_SIM
  void ExpectAPlannedNumberOfKernels(const model::ModelConfig& shape, Engine engine) const {
    ASSERT_TRUE(engine.Submit(Request(1, 20, 30)).ok());
    for (int step = 0; step < 5; ++step) (void)StepOf(engine);
    const std::uint64_t before = cuda_sim::KernelsRun();
    for (int step = 0; step < 10; ++step) (void)StepOf(engine);
    const auto kernels = static_cast<std::int64_t>(cuda_sim::KernelsRun() - before) / 10;
    EXPECT_LE(kernels, model::DecodeStepKernels(shape));
    EXPECT_GT(2 * kernels, model::DecodeStepKernels(shape));
  }
#endif
};

// What tests/gpu_report takes into its page.
inline void Measured(const std::string& text) { std::printf("[ MEASURED ] %s\n", text.c_str()); }

}  // namespace thresher::actor
