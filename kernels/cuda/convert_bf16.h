#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Matrices into the form that tensor-core products read (Bf16Rows). Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

// y [T, N] = x [T, N] rounded to bf16, to nearest, ties to even; a NaN stays one. Columns N to ldy
// of y become zero.
cudaError_t RoundToBf16(cudaStream_t stream, std::int64_t t, std::int64_t n, const float* x,
                        std::int64_t ldx, std::uint16_t* y, std::int64_t ldy);

// w [N, K] from its packed image (kernels/cpu/gemm.h: bf16, the panels of 32 outputs), on the
// device. Columns K to ldw of w become zero; ldw is even.
cudaError_t UnpackBf16(cudaStream_t stream, std::int64_t n, std::int64_t k, const void* image,
                       std::uint16_t* w, std::int64_t ldw);

}  // namespace thresher::kernels::cuda
