#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "common/model/device_plan.h"
#include "common/model/step_runner.h"

namespace thresher::model {

struct CudaRunnerOptions {
  DeviceKernelSet set = DeviceKernelSet::kFp32;
  int device = 0;
  std::int32_t slots = 1;                       // sequences at once
  std::int32_t max_rows = 1;                    // of a step
  std::int32_t pages = 0;                       // 0: what PlanDevice finds
  double memory_fraction = 0.9;                 // of what is free when the runner is made
  std::vector<std::int64_t> self_test_batches;  // of kBf16; empty: the default
  // The device is shared with learners, in turns that the owner of this runner takes and gives
  // (Release): memory_fraction is of all of its memory, and a step waits this long for what is not
  // there yet (gpu::AwaitMemory). 0: not shared.
  std::chrono::milliseconds patience{0};
  bool graphs = true;  // decode steps are recorded once and replayed
};

// Steps on a GPU in one of its kernel sets; with cpu-fp32-v1 they have the bits of the CPU. Two may
// be on their way; what a step draws without filters stays on the device for the next one. Opens
// the device. Errors: those of gpu::OpenDevice and of DeviceProducts::Make; kResourceExhausted
// (PlanDevice).
Result<std::unique_ptr<StepRunner>> MakeCudaRunner(const ModelConfig& config,
                                                   const CudaRunnerOptions& options);

}  // namespace thresher::model
