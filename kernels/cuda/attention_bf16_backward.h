#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attention_backward.h"
#include "kernels/cuda/attention_bf16.h"

// The backward pass of cuda-bf16-sm90-v1's attention (attention_bf16.h) over whole dense sequences,
// on the matrix units of compute capability 9.0. It serves the same head dimensions.
//
// Definition. q, k, v and dO are rounded to bf16; c = scale * log2(e) in fp32. For a query i and a
// key j of its past, of one head:
//   delta_i = the sum of dO_id out_id: thread n of 16 sums d = n, n + 16, ... by multiply-adds from
//             +0, then a tree over the 16;
//   a_ij = q_i . k_j and b_ij = dO_i . v_j, one accumulator each, as in the forward pass;
//   P_ij = 2^(a_ij c - lse_i log2(e)) by ex2.approx.ftz, the exponent one fused multiply-add;
//   S_ij = (P_ij (b_ij - delta_i)) scale. Both +0 where j > i.
//   dq_i = the sum of bf16(S_ij) k_j: one accumulator over positions j ascending, from 0;
//   dk_j = the sum of bf16(S_ij) q_i, dv_j = of bf16(P_ij) dO_i: one accumulator each over (64
//          queries, head of the group, query), all ascending, from the 64 that hold j.
// Accumulators are wgmma's (fp32), 16 terms a step; up to multiples of 64 stand zeros. There is one
// form, and no atomic addition: the gradient of a sequence depends on the sequence alone.
//
// Bound. Letters as in attention_bf16.h; A = c * the largest sum |q_d k_d| of a pair, N the queries
// times heads, or keys, that are summed, counted up to multiples of 64, B_ij = the sum of |dO_d
// v_d| and |delta_i|. Relative to P_ij a weight is off by (5 D A + 88 + 4) u; relative to P_ij B_ij
// scale S_ij is off by that, 7 D u of its product and 16 u of other roundings; both by 2^-8 once
// rounded; a chain loses 7 N u. With second-order terms as there, plain and fast form alike are off
// by at most
//   (1 + 2^-5) (2^-8 + (5 D A + 7 D + 112 + 7 N) u) M + N 2^-125 (1 + the largest operand),
// M = the sum of |term|, with P_ij B_ij scale in the place of |S_ij|.
namespace thresher::kernels::cuda {

// summed: N; score: A; magnitude: M; largest: of the summed operand, times B and scale where S is
// summed.
constexpr double AttentionBackwardBf16Bound(std::int64_t head_dim, std::int64_t summed,
                                            double score, double magnitude, double largest) {
  const auto dims = static_cast<double>((head_dim + 63) / 64 * 64);
  const auto terms = static_cast<double>(summed);
  const double relative = 0x1p-8 + (5 * dims * score + 7 * dims + 112 + 7 * terms) * 0x1p-24;
  return (1 + 0x1p-5) * relative * magnitude + terms * 0x1p-125 * (1 + largest);
}

std::size_t AttentionBackwardBf16ScratchBytes(std::int64_t t, std::int64_t heads,
                                              std::int64_t kv_heads, std::int64_t head_dim);

// As AttentionBackward; args.scale > 0. scratch: 16-byte aligned,
// AttentionBackwardBf16ScratchBytes(args.t, ...). cudaErrorInvalidValue: a shape that is not
// served.
cudaError_t AttentionBackwardBf16(cudaStream_t stream, const AttentionBackwardArgs& args,
                                  const Sequences& sequences, void* scratch);

// The plain form, a query or a key at a time: sums of products are chains of fused multiply-adds
// from +0. Needs no tensor cores. With `magnitudes`, M of every value instead, rounded up.
cudaError_t AttentionBackwardBf16Plain(cudaStream_t stream, const AttentionBackwardArgs& args,
                                       const Sequences& sequences, void* scratch,
                                       bool magnitudes = false);

}  // namespace thresher::kernels::cuda
