#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "common/model/cuda/device_parameters.h"
#include "common/model/device_plan.h"
#include "common/model/training_pass.h"

namespace thresher::model {

struct CudaTrainingOptions {
  int device = 0;
  DeviceKernelSet set = DeviceKernelSet::kFp32;
  std::vector<std::int64_t> self_test_batches;  // of kBf16; empty: the default
  // The device is shared with engines, in turns that the owner of this pass takes and gives
  // (Release): what is not there yet is waited for this long (gpu::AwaitMemory). 0: not shared.
  std::chrono::milliseconds patience{0};
  // Where the policy's weights and the sum of the gradients are; null: leaves are begun with them.
  std::shared_ptr<DeviceParameters> parameters;
};

// Leaves on a GPU in one of its kernel sets: forward and backward on the device, the leaf's
// gradient fetched at its end. With cpu-fp32-v1 they have the bits of the CPU. In
// cuda-bf16-sm90-v1 the products of the backward pass, too, are of operands rounded to bf16 with
// fp32 sums; a chain over tokens goes on in steps of 16, so there the cut into micro-batches
// belongs to the result. The policy's weights are sent once for each object that holds them, or
// packed once for each version of the parameters that are on the device. Opens the device. Errors:
// those of gpu::OpenDevice and DeviceProducts::Make; kResourceExhausted.
Result<std::unique_ptr<TrainingPass>> MakeCudaTrainingPass(const ModelConfig& config,
                                                           const CudaTrainingOptions& options);

}  // namespace thresher::model
