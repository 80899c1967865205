#pragma once

#include <cstddef>
#include <cstdint>

// Matrix products of a linear layer. Weights have the Hugging Face layout W [N, K], row-major,
// y = x W^T + bias. All arrays fp32, row-major; ld* is the distance of two rows in floats.
//
// Bits: y[t, n] is one fma chain, ascending in k, from +0, for each chunk of kGemmKChunk values of
// k (cut at absolute multiples); the chunks' sums are added ascending; the bias is added last. So
// a row of y depends on its row of x, W and bias alone: not on T, on neighbours, on how T or N (at
// multiples of kGemmPanel) is cut into calls or over threads.
namespace thresher::kernels {

inline constexpr std::int64_t kGemmPanel = 32;    // columns of a packed panel
inline constexpr std::int64_t kGemmKChunk = 512;  // part of the kernel set's identity

// Floats needed by PackWeights for W [N, K]: N rounded up to whole panels, times K.
std::size_t PackedSize(std::int64_t n, std::int64_t k);

// Packs W [N, K] for y = x W^T into panels [ceil(N/32)][K][32], zero padded. `packed` has
// PackedSize(n, k) floats; 64-byte alignment is fastest. Panel p covers outputs 32p..32p+31, so
// packed + p * k * 32 is the packed form of the rows of W from 32p on.
void PackWeights(std::int64_t n, std::int64_t k, const float* w, float* packed);

// Packs the transpose of W [N, K], for dx = dy W: afterwards
// Gemm(T, /*n=*/K, /*k=*/N, dy, lddy, packed, nullptr, dx, lddx). `packed` has PackedSize(k, n)
// floats.
void PackWeightsTransposed(std::int64_t n, std::int64_t k, const float* w, float* packed);

// y [T, N] = x [T, K] W^T + bias. bias [N] or nullptr. y is overwritten and must not overlap x.
// T, N, K >= 0; nothing is read or written beyond the stated shapes.
void Gemm(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
          const float* packed, const float* bias, float* y, std::int64_t ldy);

// dw [N, K] += dy^T x for dy [T, N], x [T, K]. Each dw[n, k] is continued from its present value as
// one fma chain over tokens ascending, so consecutive calls over consecutive tokens give the bits
// of one call. Rows of dw may be cut over threads (offset dy and dw by the same n).
void GemmAccumulateWeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                              std::int64_t lddy, const float* x, std::int64_t ldx, float* dw);

// dbias [N] += sum over tokens of dy [T, N]; one chain of additions over tokens ascending,
// likewise.
void BiasGrad(std::int64_t t, std::int64_t n, const float* dy, std::int64_t lddy, float* dbias);

}  // namespace thresher::kernels
