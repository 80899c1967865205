#pragma once

// Gradients of weights and biases: chains over tokens, continued from what the accumulator holds.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// dw[0..NR) x [NV vectors] continued over t tokens; x packed with leading dimension 16 * NV.
template <int NR, int NV>
static void GradMicro(std::int64_t t, const float* dy, std::int64_t lddy, const float* x, float* dw,
                      std::int64_t lddw, std::int64_t columns) {
  F16 acc[NR][NV];
#pragma GCC unroll 12
  for (int r = 0; r < NR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = LoadN(dw + r * lddw + v * 16, columns - v * 16);
  }
  for (std::int64_t i = 0; i < t; ++i, dy += lddy, x += NV * 16) {
    F16 w[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) w[v] = Load(x + v * 16);
#pragma GCC unroll 12
    for (int r = 0; r < NR; ++r) {
      const F16 a = Set1(dy[r]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = Fma(a, w[v], acc[r][v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < NR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) StoreN(dw + r * lddw + v * 16, acc[r][v], columns - v * 16);
  }
}

// x [t, columns of the slab] copied densely, missing columns +0.
static void PackSlab(std::int64_t t, std::int64_t columns, std::int64_t width, const float* x,
                     std::int64_t ldx, float* slab) {
  for (std::int64_t i = 0; i < t; ++i) {
    for (std::int64_t c = 0; c < width; c += 16) {
      Store(slab + i * width + c, LoadN(x + i * ldx + c, columns - c));
    }
  }
}

// Columns [0, columns) of dw, of NV vectors at most, for all rows of dw; x is packed.
template <int NV>
static void GradSlab(std::int64_t tokens, std::int64_t n, const float* dy, std::int64_t lddy,
                     const float* slab, float* dw, std::int64_t lddw, std::int64_t columns) {
  constexpr int kRows = GradRows(NV);
  std::int64_t r = 0;
  for (; r + kRows <= n; r += kRows) {
    GradMicro<kRows, NV>(tokens, dy + r, lddy, slab, dw + r * lddw, lddw, columns);
  }
  for (; r + 2 <= n; r += 2) {
    GradMicro<2, NV>(tokens, dy + r, lddy, slab, dw + r * lddw, lddw, columns);
  }
  if (r < n) GradMicro<1, NV>(tokens, dy + r, lddy, slab, dw + r * lddw, lddw, columns);
}

using GradSlabFunction = void (*)(std::int64_t, std::int64_t, const float*, std::int64_t,
                                  const float*, float*, std::int64_t, std::int64_t);

// The function for slabs of `vecs` (1 to kGradVecs) vectors.
template <int NV = kGradVecs>
static GradSlabFunction GradSlabFor(std::int64_t vecs) {
  if constexpr (NV > 1) {
    if (vecs < NV) return GradSlabFor<NV - 1>(vecs);
  }
  return GradSlab<NV>;
}

static void WeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                       std::int64_t lddy, const float* x, std::int64_t ldx, float* dw,
                       std::int64_t lddw) {
  constexpr std::int64_t kTokens = 192;  // a slab of x in L2 while the rows of dw pass
  // Slabs of nearly equal width: of one that is cut short the rest would be computed in vain.
  const std::int64_t vecs = (k + 15) / 16, slabs = (vecs + kGradVecs - 1) / kGradVecs;
  float* slab = Scratch(ScratchSlot::kGradPanel, kTokens * kGradVecs * 16);
  for (std::int64_t t0 = 0; t0 < t; t0 += kTokens) {
    const std::int64_t tokens = t - t0 < kTokens ? t - t0 : kTokens;
    for (std::int64_t i = 0, k0 = 0; i < slabs; ++i) {
      const std::int64_t width = vecs / slabs + (i < vecs % slabs ? 1 : 0);
      PackSlab(tokens, k - k0, width * 16, x + t0 * ldx + k0, ldx, slab);
      GradSlabFor(width)(tokens, n, dy + t0 * lddy, lddy, slab, dw + k0, lddw, k - k0);
      k0 += width * 16;
    }
  }
}

static void BiasGrad(std::int64_t t, std::int64_t n, const float* dy, std::int64_t lddy,
                     float* dbias) {
  for (std::int64_t c = 0; c < n; c += 16) {
    F16 sum = LoadN(dbias + c, n - c);
    for (std::int64_t i = 0; i < t; ++i) sum = Add(sum, LoadN(dy + i * lddy + c, n - c));
    StoreN(dbias + c, sum, n - c);
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
