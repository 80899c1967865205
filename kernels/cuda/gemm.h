#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/weight_type.h"

// Products of the kernel set cpu-fp32-v1 on a device, with the same bits (kernels/cpu/gemm.h).
// Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

// Ways to divide a product, all with the same bits.
enum class GemmForm : std::uint8_t {
  kAuto,     // kStream for few rows, or where there would be too few tiles for a device
  kElement,  // an output element a thread, straight from memory: the readable one
  kStream,   // a lane a column, 16 rows: reads the weights once for them, at the speed of memory
  kTile,     // 128 x 128 outputs a block through shared memory, 8 x 8 a thread
};

// y [T, N] = x [T, K] W^T + bias. w: the packed image of W [N, K] (PackRows), copied to the device
// at a multiple of 16 bytes. bias [N] or nullptr. y must not overlap x.
cudaError_t Gemm(cudaStream_t stream, std::int64_t t, std::int64_t n, std::int64_t k,
                 const float* x, std::int64_t ldx, PackedMatrix w, const float* bias, float* y,
                 std::int64_t ldy, GemmForm form = GemmForm::kAuto);

// dw [N, K] += dy^T x: each element is continued as one fma chain over tokens ascending. Forms:
// kElement, or kTile for the others.
cudaError_t GemmAccumulateWeightGrad(cudaStream_t stream, std::int64_t t, std::int64_t n,
                                     std::int64_t k, const float* dy, std::int64_t lddy,
                                     const float* x, std::int64_t ldx, float* dw,
                                     GemmForm form = GemmForm::kAuto);

// dbias [N] += sum over tokens of dy, tokens ascending.
cudaError_t BiasGrad(cudaStream_t stream, std::int64_t t, std::int64_t n, const float* dy,
                     std::int64_t lddy, float* dbias);

}  // namespace thresher::kernels::cuda
