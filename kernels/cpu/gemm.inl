#pragma once

// Gemm and its weight gradient. One output element is one fma chain whatever the register block, so
// blocks are chosen for speed alone.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// A tile of MR rows x NV vectors of columns. `b` is the first panel, panel_stride floats apart.
struct GemmTile {
  std::int64_t k;
  const float* x;
  std::int64_t ldx;
  const float* b;
  std::int64_t panel_stride;
  const float* bias;
  float* y;
  std::int64_t ldy;
  std::int64_t columns;  // valid ones, from the tile's first
};

// acc += x[:, k0..k1) b[k0..k1, :].
template <int MR, int NV>
THRESHER_INLINE void GemmChunk(const GemmTile& tile, std::int64_t k0, std::int64_t k1,
                               F16 (&acc)[MR][NV]) {
  const float* b = tile.b + k0 * kGemmPanel;
  for (std::int64_t k = k0; k < k1; ++k, b += kGemmPanel) {
    F16 w[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) w[v] = Load(b + (v / 2) * tile.panel_stride + (v % 2) * 16);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const F16 a = Set1(tile.x[r * tile.ldx + k]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = Fma(a, w[v], acc[r][v]);
    }
  }
}

template <int MR, int NV>
THRESHER_INLINE void GemmStore(const GemmTile& tile, F16 (&total)[MR][NV]) {
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    const std::int64_t columns = tile.columns - v * 16;
    if (columns <= 0) break;
    const F16 bias = tile.bias != nullptr ? LoadN(tile.bias + v * 16, columns) : Zero();
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const F16 sum = tile.bias != nullptr ? Add(total[r][v], bias) : total[r][v];
      StoreN(tile.y + r * tile.ldy + v * 16, sum, columns);
    }
  }
}

template <int MR, int NV>
static void GemmMicro(const GemmTile& tile) {
  F16 total[MR][NV];
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) total[r][v] = Zero();
  }
  GemmChunk<MR, NV>(tile, 0, tile.k < kGemmKChunk ? tile.k : kGemmKChunk, total);
  for (std::int64_t k0 = kGemmKChunk; k0 < tile.k; k0 += kGemmKChunk) {
    F16 part[MR][NV];
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) part[r][v] = Zero();
    }
    const std::int64_t k1 = k0 + kGemmKChunk < tile.k ? k0 + kGemmKChunk : tile.k;
    GemmChunk<MR, NV>(tile, k0, k1, part);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) total[r][v] = Add(total[r][v], part[r][v]);
    }
  }
  GemmStore<MR, NV>(tile, total);
}

// All columns of `rows` rows, in tiles of MR x NV. Columns outer: a panel stays in cache over them.
template <int MR, int NV>
static void GemmRows(std::int64_t rows, std::int64_t n, const GemmTile& whole) {
  GemmTile tile = whole;
  for (std::int64_t n0 = 0; n0 < n; n0 += NV * 16) {
    tile.b = whole.b + (n0 / kGemmPanel) * whole.panel_stride + n0 % kGemmPanel;
    tile.bias = whole.bias != nullptr ? whole.bias + n0 : nullptr;
    tile.columns = n - n0;
    // The last tile may hold fewer panels than it could: one vector at a time there.
    const bool narrow =
        NV > 2 && (n0 + NV * 16 + kGemmPanel - 1) / kGemmPanel > (n + kGemmPanel - 1) / kGemmPanel;
    for (std::int64_t r = 0; r < rows; r += MR) {
      tile.x = whole.x + r * whole.ldx;
      tile.y = whole.y + r * whole.ldy + n0;
      if (!narrow) {
        GemmMicro<MR, NV>(tile);
        continue;
      }
      GemmTile part = tile;
      for (std::int64_t c = 0; c < tile.columns; c += 16) {
        part.b = tile.b + (c / kGemmPanel) * tile.panel_stride + c % kGemmPanel;
        part.bias = tile.bias != nullptr ? tile.bias + c : nullptr;
        part.y = tile.y + c;
        part.columns = tile.columns - c;
        part.columns = part.columns < 16 ? part.columns : 16;
        GemmMicro<MR, 1>(part);
      }
    }
  }
}

// Gemm with the distance of two panels given (a product with only the first k of a longer packing).
static void GemmStrided(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                        std::int64_t ldx, const float* packed, std::int64_t panel_stride,
                        const float* bias, float* y, std::int64_t ldy) {
  constexpr std::int64_t kRowBlock = 96;  // rows whose x stays in L2 while the panels pass
  for (std::int64_t t0 = 0; t0 < t; t0 += kRowBlock) {
    std::int64_t rows = t - t0 < kRowBlock ? t - t0 : kRowBlock;
    GemmTile tile{k, x + t0 * ldx, ldx, packed, panel_stride, bias, y + t0 * ldy, ldy, n};
    const auto done = [&](std::int64_t count) {
      rows -= count;
      tile.x += count * ldx;
      tile.y += count * ldy;
    };
    const std::int64_t full = rows / kGemmRows * kGemmRows;
    if (full > 0) {
      GemmRows<kGemmRows, kGemmVecs>(full, n, tile);
      done(full);
    }
    if constexpr (kGemmRows > 8) {
      if (rows >= 8) {
        GemmRows<8, kGemmVecs>(8, n, tile);
        done(8);
      }
    }
    if (rows >= 4) {
      GemmRows<4, kGemmVecs4>(4, n, tile);
      done(4);
    }
    if (rows >= 2) {
      GemmRows<2, kGemmVecs2>(2, n, tile);
      done(2);
    }
    if (rows >= 1) GemmRows<1, kGemmVecs1>(1, n, tile);
  }
}

static void GemmPacked(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
                 PackedMatrix w, const float* bias, float* y, std::int64_t ldy) {
  GemmStrided(t, n, k, x, ldx, static_cast<const float*>(w.data), k * kGemmPanel, bias, y, ldy);
}

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
