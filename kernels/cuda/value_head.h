#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cpu/value_head.h"

// kernels/cpu/value_head.h on a device, with the same bits: all pointers are device memory, the
// work is put on `stream`, and what is returned is the error of the launch.
namespace thresher::kernels::cuda {

cudaError_t ValueHeadForward(cudaStream_t stream, std::int64_t t, std::int64_t d,
                             const float* hidden, std::int64_t ldh, const float* weight,
                             const float* bias, float* value);

cudaError_t ValueHeadBackward(cudaStream_t stream, const ValueHeadBackwardArgs& args);

}  // namespace thresher::kernels::cuda
