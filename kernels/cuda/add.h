#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace thresher::kernels::cuda {

// sum[i] = sum[i] + other[i], or other[i] + sum[i] if other_first, for i in [0, n): the addition of
// comm::TreeAllReduce, element by element, with its bits. Device memory; no overlap. Puts the work
// on `stream`; returns the launch's error.
cudaError_t Add(cudaStream_t stream, std::int64_t n, float* sum, const float* other,
                bool other_first);

}  // namespace thresher::kernels::cuda
