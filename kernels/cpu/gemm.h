#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/weight_type.h"

// Matrix products of a linear layer, y = x W^T + bias. Weights have the Hugging Face layout W [N,
// K], row-major, in fp32, bf16 or fp16, and are packed once. x, bias, y and all gradients are fp32,
// row-major; ld* is the distance of two rows in elements.
//
// Bits in the kernel set kFp32: weights are widened exactly; y[t, n] is one fma chain, ascending in
// k, from +0, for each chunk of kGemmKChunk values of k (cut at absolute multiples); the chunks'
// sums are added ascending; the bias is added last. So a row of y depends on its row of x, W and
// bias alone: not on T, on neighbours, on how T or N (at multiples of kGemmPanel) is cut into calls
// or over threads; and 16-bit weights give the bits of the same product over the widened fp32 ones.
//
// The other kernel sets (dispatch.h) differ for bf16 weights alone. Both round x to bf16 (to
// nearest, ties to even); an odd K is padded with a zero in x and W; all operands, results, chunk
// sums and the bias have denormals as zeros of their sign (rounded to nearest, tiny after
// rounding).
//   kBf16Dot  as kFp32, chunks included, but of each pair (2i, 2i + 1) the odd value is multiplied
//             first: what vdpbf16ps does. Source: Intel SDM vol. 2, VDPBF16PS.
//   kBf16Amx  no chunks: K is cut at multiples of 32 into groups; of a group the even values are
//   one
//             fma chain from +0, the odd values another, y gains (even + odd); groups ascending. A
//             last group of fewer pairs goes on with zeros. What tdpbf16ps does with 16 pairs.
//             Source: Intel SDM vol. 2, TDPBF16PS.
namespace thresher::kernels {

inline constexpr std::int64_t kGemmPanel = 32;    // columns of a packed panel
inline constexpr std::int64_t kGemmKChunk = 512;  // part of the kernel set's identity

// Bytes of the packed image of W [N, K]. Panel p covers outputs 32p..32p+31 (missing ones are
// zero):
//   fp32, fp16  [ceil(N/32)][K][32]
//   bf16        [ceil(N/32)][ceil(K/2)][32][2]: values 2i and 2i+1 of a column side by side (an odd
//               K is padded with a zero), as vdpbf16ps and the tiles of AMX read them.
// The image of W [N, K] for dx = dy W (PackRowsTransposed) takes PackedBytes(type, k, n).
std::size_t PackedBytes(WeightType type, std::int64_t n, std::int64_t k);

// Packs rows [row0, row0 + rows) of W [N, K] for y = x W^T. w: those rows, [rows, K] elements of
// `type`. packed: the image of the whole W; what other rows own in it is left alone, so matrices
// that lie in several tensors are packed one after another, in any order or at the same time for
// rows in different panels.
void PackRows(WeightType type, std::int64_t n, std::int64_t k, std::int64_t row0, std::int64_t rows,
              const void* w, void* packed);

// The same into the image of the transpose, for dx = dy W: afterwards
// Gemm(T, /*n=*/K, /*k=*/N, dy, lddy, packed, nullptr, dx, lddx).
void PackRowsTransposed(WeightType type, std::int64_t n, std::int64_t k, std::int64_t row0,
                        std::int64_t rows, const void* w, void* packed);

// The packed form of the rows of W [N, K] from row0 on; row0 is a multiple of kGemmPanel.
PackedMatrix PackedFrom(PackedMatrix w, std::int64_t k, std::int64_t row0);

// W[row, :] of W [N, K], widened to fp32, into out [K]: an embedding that shares a head's weights.
void PackedRow(PackedMatrix w, std::int64_t n, std::int64_t k, std::int64_t row, float* out);

// y [T, N] = x [T, K] W^T + bias. w: the packed W [N, K]. bias [N] or nullptr. y is overwritten and
// must not overlap x. T, N, K >= 0; nothing is read or written beyond the stated shapes.
void Gemm(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
          PackedMatrix w, const float* bias, float* y, std::int64_t ldy);

// dw [N, K] += dy^T x for dy [T, N], x [T, K]. Each dw[n, k] is continued from its present value as
// one fma chain over tokens ascending, so consecutive calls over consecutive tokens give the bits
// of one call. Rows of dw may be cut over threads (offset dy and dw by the same n).
void GemmAccumulateWeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                              std::int64_t lddy, const float* x, std::int64_t ldx, float* dw);

// dbias [N] += sum over tokens of dy [T, N]; one chain of additions over tokens ascending,
// likewise.
void BiasGrad(std::int64_t t, std::int64_t n, const float* dy, std::int64_t lddy, float* dbias);

}  // namespace thresher::kernels
