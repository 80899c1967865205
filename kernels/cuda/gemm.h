#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/weight_type.h"

// Products of the kernel set cpu-fp32-v1 on a device, with the same bits (kernels/cpu/gemm.h): the
// plain forms, an output element a thread. Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

// y [T, N] = x [T, K] W^T + bias. w: the packed image of W [N, K] (PackRows), copied to the device.
// bias [N] or nullptr. y must not overlap x.
cudaError_t Gemm(cudaStream_t stream, std::int64_t t, std::int64_t n, std::int64_t k,
                 const float* x, std::int64_t ldx, PackedMatrix w, const float* bias, float* y,
                 std::int64_t ldy);

// dw [N, K] += dy^T x: each element is continued as one fma chain over tokens ascending.
cudaError_t GemmAccumulateWeightGrad(cudaStream_t stream, std::int64_t t, std::int64_t n,
                                     std::int64_t k, const float* dy, std::int64_t lddy,
                                     const float* x, std::int64_t ldx, float* dw);

// dbias [N] += sum over tokens of dy, tokens ascending.
cudaError_t BiasGrad(cudaStream_t stream, std::int64_t t, std::int64_t n, const float* dy,
                     std::int64_t lddy, float* dbias);

}  // namespace thresher::kernels::cuda
