#pragma once

// The backward pass of attention over one dense sequence, as products of blocks of 64 queries with
// all keys up to them: S = Q K^T, dP = dO V^T, dQ = dS K, dK = dS^T Q, dV = P^T dO, all of them the
// project's own Gemm and weight gradient.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/gemm.inl"
#include "kernels/cpu/math.inl"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"
#include "kernels/cpu/weight_grad.inl"

namespace thresher::kernels::THRESHER_VARIANT {

inline constexpr std::int64_t kQueryBlock = 64;

// [n, k] rows at ldw into Gemm's panels; like PackWeights, with a leading dimension.
static void PackRows(std::int64_t n, std::int64_t k, const float* w, std::int64_t ldw,
                     float* packed) {
  for (std::int64_t n0 = 0; n0 < n; n0 += kGemmPanel) {
    for (std::int64_t i = 0; i < k; ++i, packed += kGemmPanel) {
      for (std::int64_t c = 0; c < kGemmPanel; ++c) {
        packed[c] = n0 + c < n ? w[(n0 + c) * ldw + i] : 0.0f;
      }
    }
  }
}

// The transpose of [n, k] likewise.
static void PackColumns(std::int64_t n, std::int64_t k, const float* w, std::int64_t ldw,
                        float* packed) {
  for (std::int64_t k0 = 0; k0 < k; k0 += kGemmPanel) {
    for (std::int64_t i = 0; i < n; ++i, packed += kGemmPanel) {
      Store(packed, LoadN(w + i * ldw + k0, k - k0));
      Store(packed + 16, LoadN(w + i * ldw + k0 + 16, k - k0 - 16));
    }
  }
}

static void ZeroRows(std::int64_t t, std::int64_t d, float* x, std::int64_t ldx) {
  for (std::int64_t i = 0; i < t; ++i) {
    for (std::int64_t c = 0; c < d; c += 16) StoreN(x + i * ldx + c, Zero(), d - c);
  }
}

static float Dot(std::int64_t d, const float* a, const float* b) {
  F16 sum = Zero();
  for (std::int64_t c = 0; c < d; c += 16) sum = Fma(LoadN(a + c, d - c), LoadN(b + c, d - c), sum);
  return ReduceAdd(sum);
}

// One row of n scores and dP: scores become probabilities, dp becomes the gradient of q . k; +0
// from `valid` on.
static void SoftmaxBackwardRow(std::int64_t n, std::int64_t valid, float scale, float lse,
                               float delta, float* scores, float* dp) {
  for (std::int64_t j = 0; j < n; j += 16) {
    const M16 mask = FirstN(valid - j);
    const F16 s = Mul(LoadN(scores + j, n - j), Set1(scale));
    const F16 p = Select(mask, ExpV(Sub(s, Set1(lse))), Zero());
    const F16 ds = Mul(Mul(p, Sub(LoadN(dp + j, n - j), Set1(delta))), Set1(scale));
    StoreN(scores + j, p, n - j);
    StoreN(dp + j, Select(mask, ds, Zero()), n - j);
  }
}

// The packed keys and values of one KV head and the block's probabilities and score gradients.
struct BackwardScratch {
  float* keys;
  float* values;
  float* keys_transposed;
  float* p;
  float* ds;
  std::int64_t ld;  // of p and ds
};

// Queries [q0, q0 + rows) of head h, which reads KV head g.
static void BackwardBlock(const AttentionBackwardArgs& a, const BackwardScratch& s, std::int64_t g,
                          std::int64_t h, std::int64_t q0, std::int64_t rows) {
  const std::int64_t dh = a.head_dim;
  const std::int64_t n = q0 + rows;
  const float* q = a.q + q0 * a.ldq + h * dh;
  const float* dout = a.dout + q0 * a.lddo + h * dh;
  GemmStrided(rows, n, dh, q, a.ldq, s.keys, dh * kGemmPanel, nullptr, s.p, s.ld);
  GemmStrided(rows, n, dh, dout, a.lddo, s.values, dh * kGemmPanel, nullptr, s.ds, s.ld);
  for (std::int64_t i = 0; i < rows; ++i) {
    const float delta = Dot(dh, dout + i * a.lddo, a.out + (q0 + i) * a.ldo + h * dh);
    SoftmaxBackwardRow(n, q0 + i + 1, a.scale, a.lse[(q0 + i) * a.heads + h], delta, s.p + i * s.ld,
                       s.ds + i * s.ld);
  }
  GemmStrided(rows, dh, n, s.ds, s.ld, s.keys_transposed, a.t * kGemmPanel, nullptr,
              a.dq + q0 * a.lddq + h * dh, a.lddq);
  WeightGrad(rows, n, dh, s.ds, s.ld, q, a.ldq, a.dk + g * dh, a.lddk);
  WeightGrad(rows, n, dh, s.p, s.ld, dout, a.lddo, a.dv + g * dh, a.lddv);
}

static void AttentionBackward(const AttentionBackwardArgs& a) {
  const std::int64_t dh = a.head_dim;
  const std::int64_t group = a.heads / a.kv_heads;
  const std::int64_t padded_t = (a.t + kGemmPanel - 1) / kGemmPanel * kGemmPanel;
  const std::int64_t padded_dh = (dh + kGemmPanel - 1) / kGemmPanel * kGemmPanel;
  BackwardScratch s;
  s.ld = padded_t;
  s.keys = Scratch(ScratchSlot::kPackedKeys, padded_t * dh);
  s.values = Scratch(ScratchSlot::kPackedValues, padded_t * dh);
  s.keys_transposed = Scratch(ScratchSlot::kPackedKeysT, padded_dh * a.t);
  s.p = Scratch(ScratchSlot::kProbabilities, kQueryBlock * s.ld);
  s.ds = Scratch(ScratchSlot::kScoreGrads, kQueryBlock * s.ld);
  for (std::int64_t g = 0; g < a.kv_heads; ++g) {
    PackRows(a.t, dh, a.k + g * dh, a.ldk, s.keys);
    PackRows(a.t, dh, a.v + g * dh, a.ldv, s.values);
    PackColumns(a.t, dh, a.k + g * dh, a.ldk, s.keys_transposed);
    ZeroRows(a.t, dh, a.dk + g * dh, a.lddk);
    ZeroRows(a.t, dh, a.dv + g * dh, a.lddv);
    for (std::int64_t q0 = 0; q0 < a.t; q0 += kQueryBlock) {
      const std::int64_t rows = a.t - q0 < kQueryBlock ? a.t - q0 : kQueryBlock;
      for (std::int64_t h = g * group; h < (g + 1) * group; ++h)
        BackwardBlock(a, s, g, h, q0, rows);
    }
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
