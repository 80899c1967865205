#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/bf16_rows.h"

// Causal grouped-query attention of the kernel set cuda-bf16-sm90-v1 (gemm_bf16.h) over bf16 pages,
// on the matrix units of compute capability 9.0. Arguments, forms and scratch memory are those of
// attention.h. It serves head dimensions up to 128; wider heads are computed by attention.h, which
// then is the set's definition.
//
// The set's definition. q is rounded to bf16. c = scale * log2(e) in fp32. The positions of a
// sequence are cut into splits of 64, counted from its position 0. Of a split, for a row that sees
// its first n positions:
//   a_j = q . k_j, one accumulator of wgmma m64nNk16 (bf16, fp32) over k16 steps ascending, begun
//   at
//         zero; behind the head dimension, to a multiple of 64, stand zeros;
//   m   = c * the largest a_j, j < n;
//   p_j = 2^(a_j c - m) by ex2.approx.ftz, the exponent one fused multiply-add; +0 for j >= n;
//   l   = the sum of p_j: with j = 16 w + 8 h + i, over h, then over i by halves (i and i + 4, then
//         2, then 1), then (w 0 + w 1) + (w 2 + w 3);
//   o_d = the sum of bf16(p_j) v_jd, one accumulator as above over the split's four k16 steps.
// Splits are folded ascending, from M = -inf, L = 0, O_d = 0:
//   M' = max(M, m), x = 2^(M - M'), y = 2^(m - M');  L = fma(L, x, l y), O_d = fma(O_d, x, o_d y).
//   out_d = fma(O_d, 1 / L, +0), or NaN if that is no finite number; lse = fma(M, ln 2, log L).
// Positions are the matrix unit's rows in the first product, dimensions in the second; columns are
// queries: heads of a group and rows of a sequence. So a form differs in its number of columns and
// in who folds. That a column's bits depend neither on N nor on its neighbours is what the
// documentation leaves open: the self-test (self_test.h) demands it of the device.
// A position that a row does not see is left out exactly, whatever lies there: its weight is +0,
// and values that are no finite numbers are taken out of a split that some of a block's rows see in
// part, and spoil the results of those that see them. The last addition makes a zero's sign one
// that sums of zeros do not change.
//
// Bound. Let u = 2^-24, D the head dimension's multiple of 64, F the splits of a row, A = c * the
// largest sum |q_d k_jd| of its positions, and G_d the average of |v_jd| under the exact weights:
// those of q and k as rounded and of c as it is. Errors of a weight, relative:
//   its score   the chain over D loses at most 7 D u sum |q k| (gemm_bf16.h): times c and ln 2,
//               5 D u A;
//   exponents   what is subtracted on the way from a score to its share of L adds up to at most
//               126, or the share is flushed: 126 u ln 2 <= 88 u, at most 2^-126 of L if flushed;
//   ex2         2^-22 = 4 u for its own, and for one of x, y in each fold: the other one is 1;
//   folds       two roundings: with ex2, 6 u F.
// The numerator's weights are rounded to bf16 besides (2^-8) and summed in a chain of 64 (7 * 64
// u); the denominator's in 6 additions; 2 roundings at the end. While D u A <= 2^-9, second-order
// terms are below 2^-5 of the first. So plain and fast form alike are off by at most
//   (1 + 2^-5) (2^-8 + (10 D A + 640 + 12 F) u) G_d + 64 F 2^-125 (1 + max_j |v_jd|),
// the last for what is flushed; and one from the other by twice that.
namespace thresher::kernels::cuda {

inline constexpr std::int64_t kBf16AttentionMostDim = 128;
constexpr bool ServesAttentionBf16(std::int64_t head_dim) {
  return head_dim > 0 && head_dim % 8 == 0 && head_dim <= kBf16AttentionMostDim;
}

// The bound above of one value. score: A; weighted: G_d; largest: max |v|; positions: that are
// seen.
THRESHER_BOTH_SIDES constexpr double AttentionBf16Bound(std::int64_t head_dim,
                                                        std::int64_t positions, double score,
                                                        double weighted, double largest) {
  const auto dims = static_cast<double>((head_dim + 63) / 64 * 64);
  const auto splits = static_cast<double>((positions + kAttentionSplit - 1) / kAttentionSplit);
  const double relative = 0x1p-8 + (10 * dims * score + 640 + 12 * splits) * 0x1p-24;
  return (1 + 0x1p-5) * relative * weighted + 64 * splits * 0x1p-125 * (1 + largest);
}

// kRows: a block takes 128 queries (adjacent rows, the heads of a group) through their context, 64
// columns a warpgroup. The others: a row's splits over blocks, as many columns as the name says,
// then a fold; they need scratch memory.
enum class Bf16AttentionForm : int { kRows, kSplits64, kSplits32, kSplits16, kSplits8 };
inline constexpr int kBf16AttentionForms = 5;
inline constexpr unsigned kAllBf16AttentionForms = (1u << kBf16AttentionForms) - 1;
const char* Bf16AttentionFormName(Bf16AttentionForm form);

// The form that divides splits over blocks for a group of so many heads: the narrowest of those in
// `forms` that has room for them, else the widest. kRows if there is none.
Bf16AttentionForm Bf16SplitsFormFor(unsigned forms, std::int64_t group);

// `forms`: those that may be used (self_test.h), kRows among them. scratch: as large as
// AttentionScratchBytes for forms of splits. kv: kBf16. scale > 0. Row-pure.
// cudaErrorInvalidValue: a shape or type that is not served, or `form` is kSplits and the scratch
// memory too small; cudaErrorNotSupported: no form.
cudaError_t AttentionBf16(cudaStream_t stream, const AttentionArgs& args,
                          const AttentionScratch& scratch, unsigned forms,
                          AttentionForm form = AttentionForm::kAuto);

// The same by one form (self-test, tests).
cudaError_t AttentionBf16By(cudaStream_t stream, const AttentionArgs& args,
                            const AttentionScratch& scratch, Bf16AttentionForm form);

// The plain form, a row and head at a time: sums of products are chains of fused multiply-adds from
// +0; for the rest the definition. Needs no tensor cores.
cudaError_t AttentionBf16Plain(cudaStream_t stream, const AttentionArgs& args);

// bound [T, H, Dh] = AttentionBf16Bound of every value, of an upper estimate of its terms; 0 for
// padding. Instead of out and lse, which are not written.
cudaError_t AttentionBf16Bounds(cudaStream_t stream, const AttentionArgs& args, float* bound);

}  // namespace thresher::kernels::cuda
