#pragma once

// Gradients of weights and biases: chains over tokens, continued from what the accumulator holds.
//
// A block of tokens is a product of its own: dw += dy^T x with the tokens as depth. Columns of x
// are copied to slabs as wide as a tile, rows of dy^T to panels as high as one; both lie as the
// tile reads them. Every element of dw passes its chain on from block to block, through memory.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// Tokens of a block. dw is read and written once for each, so few of them cost memory traffic; of
// many, slabs (64 KB) come from L2, and copies of dy keep the tiles' reads in a row.
inline constexpr std::int64_t kGradTokens = 512;
inline constexpr std::int64_t kGradColumns = 1024;  // of x, packed at a time: 2 MB
inline constexpr std::int64_t kGradRows = 240;  // of dw, whose dy is packed at a time: half of L2
// Fewer slabs than that do not pay for a copy of dy: slabs are to stay in L1 then.
inline constexpr std::int64_t kGradSlabsForCopy = 5, kGradFewTokens = 144;

// A tile of dw, [rows, columns] at lddw, over `t` tokens.
struct GradTile {
  std::int64_t t;
  const float* dy;  // token i's values at dy + i * lddy
  std::int64_t lddy;
  const float* x;  // a slab: token i's at x + i * 16 NV
  float* dw;
  std::int64_t lddw;
  std::int64_t columns;
};

// How far ahead of itself a tile fetches its slab and its panel into L1, in tokens.
inline constexpr std::int64_t kGradAhead = 8;

// One token of a tile.
template <int NR, int NV>
THRESHER_INLINE void GradToken(const float* dy, const float* x, F16 (&acc)[NR][NV]) {
  F16 w[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    w[v] = Load(x + v * 16);
    __builtin_prefetch(x + (kGradAhead * NV + v) * 16, 0, 3);
  }
  __builtin_prefetch(dy + kGradAhead * NR, 0, 3);
#pragma GCC unroll 12
  for (int r = 0; r < NR; ++r) {
    const F16 a = Set1(dy[r]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = Fma(a, w[v], acc[r][v]);
  }
}

template <int NR, int NV>
static void GradMicro(const GradTile& tile) {
  F16 acc[NR][NV];
  float* const dw = tile.dw;
  const std::int64_t lddw = tile.lddw, columns = tile.columns;
  const bool whole = columns >= NV * 16;
#pragma GCC unroll 12
  for (int r = 0; r < NR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const float* from = dw + r * lddw + v * 16;
      acc[r][v] = whole ? Load(from) : LoadN(from, columns - v * 16);
    }
  }
  const float* dy = tile.dy;
  const float* x = tile.x;
  const std::int64_t lddy = tile.lddy;
  // The tile below is on its way while this one is computed: a line at each of the first tokens.
  const float* ahead = dw + NR * lddw;
  const std::int64_t first = tile.t < NR * NV ? tile.t : NR * NV;
  for (std::int64_t i = 0; i < first; ++i, dy += lddy, x += NV * 16) {
    __builtin_prefetch(ahead + i % NV * 16, 1, 3);
    if (i % NV == NV - 1) ahead += lddw;
    GradToken<NR, NV>(dy, x, acc);
  }
  for (std::int64_t i = first; i < tile.t; ++i, dy += lddy, x += NV * 16) {
    GradToken<NR, NV>(dy, x, acc);
  }
#pragma GCC unroll 12
  for (int r = 0; r < NR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* to = dw + r * lddw + v * 16;
      if (whole) {
        Store(to, acc[r][v]);
      } else {
        StoreN(to, acc[r][v], columns - v * 16);
      }
    }
  }
}

using GradMicroFunction = void (*)(const GradTile&);

// The tile function for `rows` (1 to GradRows) rows and `vecs` (1 to kGradVecs) vectors.
template <int NV, int NR = GradRows(NV)>
static GradMicroFunction GradMicroOf(std::int64_t rows) {
  if constexpr (NR > 1) {
    if (rows < NR) return GradMicroOf<NV, NR - 1>(rows);
  }
  return GradMicro<NR, NV>;
}
template <int NV = kGradVecs>
static GradMicroFunction GradMicroFor(std::int64_t vecs, std::int64_t rows) {
  if constexpr (NV > 1) {
    if (vecs < NV) return GradMicroFor<NV - 1>(vecs, rows);
  }
  return GradMicroOf<NV>(rows);
}

// `count` things in parts of at most `most`, nearly equal: how many parts, and the size of part i.
// Of a part that is cut short the rest would be computed in vain.
struct Parts {
  std::int64_t count, parts;
  Parts(std::int64_t of, std::int64_t most) : count(of), parts((of + most - 1) / most) {}
  std::int64_t Size(std::int64_t i) const { return count / parts + (i < count % parts ? 1 : 0); }
};

// Floats from one slab to the next, of `vecs` vectors, and from one panel of dy^T to the next: no
// powers of two, so that those of a token do not meet in one set of the cache.
THRESHER_INLINE std::int64_t SlabFloats(std::int64_t t, std::int64_t vecs) {
  return t * vecs * 16 + 16;
}
THRESHER_INLINE std::int64_t PanelFloats(std::int64_t t) { return t * GradRows(kGradVecs) + 16; }

// Columns [0, columns) of x for t tokens as slabs: [slab][t][16 vecs]; missing columns are +0.
static void PackSlabs(std::int64_t t, std::int64_t columns, const float* x, std::int64_t ldx,
                      float* packed) {
  const Parts slabs((columns + 15) / 16, kGradVecs);
  for (std::int64_t i = 0; i < t; ++i, x += ldx) {
    float* slab = packed;
    for (std::int64_t s = 0, k0 = 0; s < slabs.parts; ++s) {
      const std::int64_t vecs = slabs.Size(s);
      for (std::int64_t v = 0; v < vecs; ++v, k0 += 16) {
        Store(slab + (i * vecs + v) * 16,
              k0 + 16 <= columns ? Load(x + k0) : LoadN(x + k0, columns - k0));
      }
      slab += SlabFloats(t, vecs);
    }
  }
}

// The same in this thread's scratch.
static const float* PackedSlabs(std::int64_t t, std::int64_t columns, const float* x,
                                std::int64_t ldx) {
  const std::int64_t vecs = (columns + 15) / 16;
  float* packed =
      Scratch(ScratchSlot::kGradPanel, static_cast<std::size_t>(SlabFloats(t, vecs) + 16 * vecs));
  PackSlabs(t, columns, x, ldx, packed);
  return packed;
}

// Rows [0, rows) of dy^T for t tokens as panels: [panel][t][its rows].
static void PackPanels(std::int64_t t, std::int64_t rows, const float* dy, std::int64_t lddy,
                       float* packed) {
  const Parts panels(rows, GradRows(kGradVecs));
  for (std::int64_t i = 0; i < t; ++i, dy += lddy) {
    float* to = packed;
    for (std::int64_t p = 0, r = 0; p < panels.parts; ++p) {
      const std::int64_t height = panels.Size(p);
      StoreN(to + i * height, LoadN(dy + r, height), height);
      to += PanelFloats(t);
      r += height;
    }
  }
}

THRESHER_INLINE bool CopiesRows(std::int64_t columns) {
  return columns > (kGradSlabsForCopy - 1) * kGradVecs * 16;
}

// dw [n, columns] for the slabs of PackSlabs.
static void GradOverSlabs(std::int64_t t, std::int64_t n, std::int64_t columns, const float* dy,
                          std::int64_t lddy, const float* packed, float* dw, std::int64_t lddw) {
  const Parts slabs((columns + 15) / 16, kGradVecs);
  const bool copies = CopiesRows(columns);
  constexpr std::int64_t kMost = GradRows(kGradVecs);
  const std::int64_t most = Parts(n < kGradRows ? n : kGradRows, kMost).parts * PanelFloats(t);
  float* panels =
      copies ? Scratch(ScratchSlot::kGradRows, static_cast<std::size_t>(most)) : nullptr;
  for (std::int64_t n0 = 0; n0 < n; n0 += kGradRows) {
    const std::int64_t rows = n - n0 < kGradRows ? n - n0 : kGradRows;
    if (copies) PackPanels(t, rows, dy + n0, lddy, panels);
    const float* slab = packed;
    for (std::int64_t s = 0, k0 = 0; s < slabs.parts; ++s) {
      const std::int64_t vecs = slabs.Size(s);
      // Panels have the height of the widest slab's tile: that of a narrower one is no less.
      const Parts tiles(rows, kMost);
      for (std::int64_t p = 0, r = 0; p < tiles.parts; ++p) {
        const std::int64_t height = tiles.Size(p);
        GradMicroFor(vecs, height)({.t = t,
                                    .dy = copies ? panels + p * PanelFloats(t) : dy + n0 + r,
                                    .lddy = copies ? height : lddy,
                                    .x = slab,
                                    .dw = dw + (n0 + r) * lddw + k0,
                                    .lddw = lddw,
                                    .columns = columns - k0});
        r += height;
      }
      slab += SlabFloats(t, vecs);
      k0 += vecs * 16;
    }
  }
}

static void WeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                       std::int64_t lddy, const float* x, std::int64_t ldx, float* dw,
                       std::int64_t lddw) {
  const Parts blocks(t, CopiesRows(k) ? kGradTokens : kGradFewTokens);
  for (std::int64_t b = 0; b < blocks.parts; ++b) {
    const std::int64_t tokens = blocks.Size(b);
    for (std::int64_t k0 = 0; k0 < k; k0 += kGradColumns) {
      const std::int64_t columns = k - k0 < kGradColumns ? k - k0 : kGradColumns;
      const float* packed = PackedSlabs(tokens, columns, x + k0, ldx);
      GradOverSlabs(tokens, n, columns, dy, lddy, packed, dw + k0, lddw);
    }
    dy += tokens * lddy;
    x += tokens * ldx;
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
