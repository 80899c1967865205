#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/weight_type.h"

// Master weights (fp32) to what is published and to what the kernels read, on the device, with the
// bits that common/model gives on a CPU: to nearest, ties to even; a NaN stays one. Conventions:
// rmsnorm.h.
namespace thresher::kernels::cuda {

// y [n] = x in `type`: elements of 4 or 2 bytes side by side.
cudaError_t NarrowWeights(cudaStream_t stream, WeightType type, std::int64_t n, const float* x,
                          void* y);

// y [n] = x rounded to `type` and widened. y may be x.
cudaError_t RoundWeights(cudaStream_t stream, WeightType type, std::int64_t n, const float* x,
                         float* y);

// image: PackRows (kernels/cpu/gemm.h) of the whole W [N, K], narrowed to `type`.
cudaError_t PackPanels(cudaStream_t stream, WeightType type, std::int64_t n, std::int64_t k,
                       const float* w, void* image);

// image: PackRowsTransposed, in fp32, of the whole W [N, K], rounded to `type` and widened.
cudaError_t PackPanelsTransposed(cudaStream_t stream, WeightType type, std::int64_t n,
                                 std::int64_t k, const float* w, float* image);

}  // namespace thresher::kernels::cuda
