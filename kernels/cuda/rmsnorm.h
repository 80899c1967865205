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

// The norm over each head of rows x [T, heads, Dh] at ldx, in place: a head is a row of the norm.
// inv_rms: [T, heads] at ld_inv, or nullptr.
cudaError_t RmsNormHeads(cudaStream_t stream, std::int64_t t, std::int64_t heads,
                         std::int64_t head_dim, float* x, std::int64_t ldx, const float* weight,
                         float eps, float* inv_rms, std::int64_t ld_inv);

// Its gradient, in place in dy [T, heads, Dh] at lddy; x: the values before the norm. dweight
// continues one chain over rows, and heads in a row.
cudaError_t RmsNormHeadsBackward(cudaStream_t stream, std::int64_t t, std::int64_t heads,
                                 std::int64_t head_dim, const float* x, std::int64_t ldx,
                                 const float* weight, const float* inv_rms, std::int64_t ld_inv,
                                 float* dy, std::int64_t lddy, float* dweight);

}  // namespace thresher::kernels::cuda
