#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/gpu/device.h"
#include "common/model/cuda/cuda_runner.h"
#include "tests/unit/actor/engine_testing.h"

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

// Tests of one policy on a device and on the host. Skips where there is no device.
class DevicePolicyTest : public EngineTest {
 protected:
  void SetUp() override {
    const auto device = gpu::OpenDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status().message();
  }

  // An engine on the device that has `weights`, or those of this test.
  static Engine OnDevice(const model::ModelConfig& shape,
                         const std::shared_ptr<const model::PackedModel>& weights,
                         const EngineOptions& options, bool graphs = true) {
    model::CudaRunnerOptions runner;
    runner.slots = options.max_batch;
    runner.max_rows = options.max_batch + options.prefill_chunk;
    runner.pages = options.kv_pages;
    runner.graphs = graphs;
    auto made = model::MakeCudaRunner(shape, runner);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    Engine engine(shape, options, std::move(made).value());
    EXPECT_TRUE(engine.SetWeights(weights, kVersion).ok());
    return engine;
  }
  Engine OnDevice(const EngineOptions& options, bool graphs = true) const {
    return OnDevice(shape_, weights_, options, graphs);
  }
};

// What tests/gpu_report takes into its page.
inline void Measured(const std::string& text) { std::printf("[ MEASURED ] %s\n", text.c_str()); }

}  // namespace thresher::actor
