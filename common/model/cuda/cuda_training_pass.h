#pragma once

#include <memory>

#include "common/model/training_pass.h"

namespace thresher::model {

// Leaves on a GPU, with the bits of the CPU: forward and backward on the device, the leaf's
// gradient fetched at its end. The policy's weights are sent once for each object that holds them.
// Opens the device. Errors: those of gpu::OpenDevice; kResourceExhausted, with what is needed and
// free.
Result<std::unique_ptr<TrainingPass>> MakeCudaTrainingPass(const ModelConfig& config, int device);

}  // namespace thresher::model
