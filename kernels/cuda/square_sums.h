#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace thresher::kernels::cuda {

// sums[b] = SquareSum (kernels/cpu/square_sum.h) of x[b * block .. (b + 1) * block), with its bits;
// the last block of the n elements may be shorter. block >= 1. Conventions: rmsnorm.h.
cudaError_t SquareSums(cudaStream_t stream, std::int64_t n, std::int64_t block, const float* x,
                       double* sums);

}  // namespace thresher::kernels::cuda
