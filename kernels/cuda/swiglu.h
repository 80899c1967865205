#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// kernels/cpu/swiglu.h on a device, with the same bits; see rmsnorm.h for the conventions.
namespace thresher::kernels::cuda {

cudaError_t SwigluForward(cudaStream_t stream, std::int64_t t, std::int64_t f, const float* gate,
                          std::int64_t ldg, const float* up, std::int64_t ldu, float* y,
                          std::int64_t ldy);

// y [T, F] or nullptr: what SwigluForward gives.
cudaError_t SwigluBackward(cudaStream_t stream, std::int64_t t, std::int64_t f, const float* gate,
                           std::int64_t ldg, const float* up, std::int64_t ldu, const float* dy,
                           std::int64_t lddy, float* dgate, std::int64_t lddg, float* dup,
                           std::int64_t lddu, float* y, std::int64_t ldy);

}  // namespace thresher::kernels::cuda
