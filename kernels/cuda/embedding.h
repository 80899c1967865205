#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// kernels/cpu/embedding.h on a device, with the same bits; see rmsnorm.h for the conventions. Ids
// are on the device, so the caller has checked them: one outside [0, V) gives a row of NaN, and no
// gradient.
namespace thresher::kernels::cuda {

cudaError_t EmbeddingForward(cudaStream_t stream, std::int64_t t, std::int64_t d, std::int64_t v,
                             const std::int32_t* ids, const float* table, float* y);

cudaError_t EmbeddingBackward(cudaStream_t stream, std::int64_t t, std::int64_t d, std::int64_t v,
                              const std::int32_t* ids, const float* dy, float* dtable);

}  // namespace thresher::kernels::cuda
