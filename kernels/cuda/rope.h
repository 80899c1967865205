#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace thresher::kernels::cuda {

// kernels/cpu/rope.h's RopeApply on a device, with the same bits; see rmsnorm.h for the
// conventions. The tables are the host's, copied: they come from double arithmetic of the host. A
// row with a position below 0 is left alone.
cudaError_t RopeApply(cudaStream_t stream, std::int64_t t, std::int64_t heads,
                      std::int64_t head_dim, const std::int32_t* positions, const float* cos,
                      const float* sin, float* x, std::int64_t ldx, bool inverse);

}  // namespace thresher::kernels::cuda
