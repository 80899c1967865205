#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/adamw.h"

// kernels/cpu/adamw.h on a device, with the same bits. Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

cudaError_t AdamWUpdate(cudaStream_t stream, std::int64_t n, const AdamWFactors& factors,
                        const float* gradient, float* weights, float* first_moment,
                        float* second_moment);

}  // namespace thresher::kernels::cuda
