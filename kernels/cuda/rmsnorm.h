#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// kernels/cpu/rmsnorm.h on a device, with the same bits: all pointers are device memory, the work
// is put on `stream`, and what is returned is the error of the launch. Row-pure.
namespace thresher::kernels::cuda {

cudaError_t RmsNormForward(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* x,
                           const float* weight, float eps, float* y, float* inv_rms);

// dx may be dy, and must not be x.
cudaError_t RmsNormBackward(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* x,
                            const float* weight, const float* inv_rms, const float* dy, float* dx,
                            float* dweight);

}  // namespace thresher::kernels::cuda
