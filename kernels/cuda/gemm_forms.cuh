#pragma once

#include "kernels/cuda/gemm.h"

namespace thresher::kernels::cuda {

// y [T, N] = x W^T + bias.
struct GemmCall {
  std::int64_t t, n, k;
  const float* x;
  std::int64_t ldx;
  PackedMatrix w;
  const float* bias;
  float* y;
  std::int64_t ldy;
};

// The forms of GemmForm; t and n are above 0.
cudaError_t GemmStream(cudaStream_t stream, const GemmCall& call);
cudaError_t GemmTile(cudaStream_t stream, const GemmCall& call);
// Blocks of GemmTile.
std::int64_t GemmTileCount(std::int64_t t, std::int64_t n);

// GemmAccumulateWeightGrad's tiles.
cudaError_t WeightGradTile(cudaStream_t stream, std::int64_t t, std::int64_t n, std::int64_t k,
                           const float* dy, std::int64_t lddy, const float* x, std::int64_t ldx,
                           float* dw);

}  // namespace thresher::kernels::cuda
