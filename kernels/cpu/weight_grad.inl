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
#pragma GCC unroll 8
  for (int r = 0; r < NR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = LoadN(dw + r * lddw + v * 16, columns - v * 16);
  }
  for (std::int64_t i = 0; i < t; ++i, dy += lddy, x += NV * 16) {
    F16 w[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) w[v] = Load(x + v * 16);
#pragma GCC unroll 8
    for (int r = 0; r < NR; ++r) {
      const F16 a = Set1(dy[r]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = Fma(a, w[v], acc[r][v]);
    }
  }
#pragma GCC unroll 8
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

static void WeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                       std::int64_t lddy, const float* x, std::int64_t ldx, float* dw,
                       std::int64_t lddw) {
  constexpr std::int64_t kWidth = kGradVecs * 16;
  constexpr std::int64_t kTokens = 128;  // a slab of x in L1 or L2 while the rows of dw pass
  float* slab = Scratch(ScratchSlot::kGradPanel, kTokens * kWidth);
  for (std::int64_t t0 = 0; t0 < t; t0 += kTokens) {
    const std::int64_t tokens = t - t0 < kTokens ? t - t0 : kTokens;
    const float* dy0 = dy + t0 * lddy;
    for (std::int64_t k0 = 0; k0 < k; k0 += kWidth) {
      PackSlab(tokens, k - k0, kWidth, x + t0 * ldx + k0, ldx, slab);
      std::int64_t r = 0;
      for (; r + kGradRows <= n; r += kGradRows) {
        GradMicro<kGradRows, kGradVecs>(tokens, dy0 + r, lddy, slab, dw + r * lddw + k0, lddw,
                                        k - k0);
      }
      for (; r + 2 <= n; r += 2) {
        GradMicro<2, kGradVecs>(tokens, dy0 + r, lddy, slab, dw + r * lddw + k0, lddw, k - k0);
      }
      if (r < n) {
        GradMicro<1, kGradVecs>(tokens, dy0 + r, lddy, slab, dw + r * lddw + k0, lddw, k - k0);
      }
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
