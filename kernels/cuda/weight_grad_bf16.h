#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/gemm_bf16.h"

// Gradients of weights in the kernel set cuda-bf16-sm90-v1 (gemm_bf16.h).
//
// Definition. dw[n, k] += sum over tokens of dy[t, n] x[t, k]: the accumulator of wgmma m64n128k16
// begins as dw[n, k] (scale-d 1) and is continued over steps of 16 tokens, ascending; behind T, to
// a multiple of 64, stand zeros. There is one chain for an element, however N and K are divided;
// calls over consecutive tokens, all but the last of a multiple of 64, give the bits of one call.
// dy is rounded to bf16 by the caller (RoundToBf16). One form; it is compared with the plain one.
//
// Bound, derived as Bf16Bound with a chain over T:
//   |fast - plain| <= 8 (T + 20) u (S + |dw|) + T 2^-125, S = sum |dy x|.
namespace thresher::kernels::cuda {

constexpr double Bf16WeightGradBound(std::int64_t t, double magnitude) {
  return 8.0 * (static_cast<double>(t) + 20.0) * 0x1p-24 * magnitude +
         static_cast<double>(t) * 0x1p-125;
}

// dw [N, K], rows lddw apart, for dy [T, N], x [T, K]. T = 0: nothing; N, K >= 1. No memory
// overlaps. cudaErrorInvalidValue: operands against the rules of Bf16Rows, or of different T.
cudaError_t WeightGradBf16(const Bf16Device& device, cudaStream_t stream, Bf16Rows dy, Bf16Rows x,
                           float* dw, std::int64_t lddw);

// The plain form, an element a thread: a chain of fused multiply-adds from dw.
cudaError_t WeightGradBf16Plain(cudaStream_t stream, Bf16Rows dy, Bf16Rows x, float* dw,
                                std::int64_t lddw);

}  // namespace thresher::kernels::cuda
