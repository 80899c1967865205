#pragma once

// The innermost product: a tile of MR rows x NV vectors of columns over one chunk of K. One output
// element is one chain whatever the tile, so tiles are chosen for speed alone.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// A form says how weights are read and multiplied. A unit is what a panel holds for one step:
// kSteps vectors a column half, each multiplied with one element of x.
//
//   X, W                          an element of x; the vector of its copies and of weights
//   kSteps, kUnitBytes            elements of x of a unit; bytes of a unit in a panel
//   kInPlace                      tiles can read what a caller gives, without a copy
//   kGroup                        0: one chain. Else units of a group: see GroupedTile
//   Read(unit, half, w)           the weights of one half (16 columns) of a panel
//   Step(a, w, acc), Sum(a, b)    acc + a w; the sum of two chunks
struct F32Form {
  using X = float;
  using W = F16;
  static constexpr bool kInPlace = true;
  static constexpr int kGroup = 0;
  static constexpr int kSteps = 1;
  static constexpr std::int64_t kUnitBytes = kGemmPanel * 4;
  THRESHER_INLINE void Read(const unsigned char* unit, int half, F16 (&w)[kSteps]) {
    w[0] = Load(reinterpret_cast<const float*>(unit) + half * 16);
  }
  THRESHER_INLINE F16 Step(F16 a, F16 w, F16 acc) { return Fma(a, w, acc); }
  THRESHER_INLINE F16 Sum(F16 a, F16 b) { return Add(a, b); }
  THRESHER_INLINE F16 Broadcast(float x) { return Set1(x); }
};

struct F16Form : F32Form {
  static constexpr std::int64_t kUnitBytes = kGemmPanel * 2;
  THRESHER_INLINE void Read(const unsigned char* unit, int half, F16 (&w)[kSteps]) {
    w[0] = LoadHalf(reinterpret_cast<const std::uint16_t*>(unit) + half * 16);
  }
};

// Pairs (k, k + 1) of a column in one lane.
struct Bf16Form : F32Form {
  static constexpr int kSteps = 2;
  THRESHER_INLINE void Read(const unsigned char* unit, int half, F16 (&w)[kSteps]) {
    const I16 pairs = LoadI(reinterpret_cast<const std::int32_t*>(unit) + half * 16);
    w[0] = FromBits(ShiftLeft<16>(pairs));
    w[1] = FromBits(AndI(pairs, Set1I(-65536)));
  }
};

// Leading dimension of copied rows of x: 33 cache lines, so that they do not meet in the same sets.
inline constexpr std::int64_t kTileLd = kGemmKChunk + 16;

struct GemmTile {
  std::int64_t units;          // whole ones of this chunk
  bool half_unit;              // and the first step of one more
  const void* x;               // Form::X, row r at x + r * ldx
  std::int64_t ldx;
  const unsigned char* panel;  // the first unit
  std::int64_t panel_bytes;    // from one panel to the next
  bool first;                  // y begins with this chunk; else it is continued
  const float* bias;           // added behind the last chunk; nullptr: not now
  float* y;
  std::int64_t ldy;
  std::int64_t columns;        // valid ones, from the tile's first
  const unsigned char* ahead;  // will be read later, is fetched into L2 meanwhile: at each unit the
  std::int64_t ahead_step;     // line here, and this many bytes on
};

// Rows of x that are addressed from one pointer: an index register has the scales 1 and 2.
inline constexpr int kRowsOfABase = 3;

// How far ahead of itself a tile of several rows fetches its panels into L1: as long as memory
// takes. A single row is best left to the hardware.
inline constexpr std::int64_t kPrefetchBytes = 4096;

// One unit; kSteps of its steps (fewer than the form's where K ends within a unit). What there are
// fewer of, elements of x or vectors of weights, stays in registers.
template <class Form, int kSteps, int MR, int NV>
THRESHER_INLINE void GemmUnit(const unsigned char* unit, std::int64_t panel_bytes,
                              const typename Form::X* const* x, std::int64_t ldx,
                              F16 (&acc)[MR][NV]) {
  typename Form::W w[NV][Form::kSteps];
  if constexpr (MR < NV) {
    typename Form::W a[MR][kSteps];
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 2
      for (int s = 0; s < kSteps; ++s) a[r][s] = Form::Broadcast(x[r / kRowsOfABase][r % kRowsOfABase * ldx + s]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      Form::Read(unit + (v / 2) * panel_bytes, v % 2, w[v]);
#pragma GCC unroll 12
      for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 2
        for (int s = 0; s < kSteps; ++s) acc[r][v] = Form::Step(a[r][s], w[v][s], acc[r][v]);
      }
    }
    return;
  }
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) Form::Read(unit + (v / 2) * panel_bytes, v % 2, w[v]);
#pragma GCC unroll 2
  for (int s = 0; s < kSteps; ++s) {
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const typename Form::W a = Form::Broadcast(x[r / kRowsOfABase][r % kRowsOfABase * ldx + s]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = Form::Step(a, w[v][s], acc[r][v]);
    }
  }
}

// What a tile computed, [rows][16 vecs], goes to y: into what stands there, with the bias, as far
// as there are columns.
template <class Form>
static void FinishTile(const GemmTile& tile, int rows, int vecs, const float* sums) {
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vecs && v * 16 < tile.columns; ++v) {
      const std::int64_t columns = tile.columns - v * 16;
      float* y = tile.y + r * tile.ldy + v * 16;
      F16 sum = Load(sums + (r * vecs + v) * 16);
      if (!tile.first) sum = Form::Sum(LoadN(y, columns), sum);
      if (tile.bias != nullptr) sum = Form::Sum(sum, LoadN(tile.bias + v * 16, columns));
      StoreN(y, sum, columns);
    }
  }
}

template <class Form, int MR, int NV>
THRESHER_INLINE void GemmStore(const GemmTile& tile, F16 (&acc)[MR][NV]) {
  const bool plain = tile.first && tile.bias == nullptr && tile.columns >= NV * 16;
  alignas(64) float sums[MR * NV * 16];
  float* to = plain ? tile.y : sums;
  const std::int64_t ld = plain ? tile.ldy : NV * 16;
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) Store(to + r * ld + v * 16, acc[r][v]);
  }
  if (!plain) FinishTile<Form>(tile, MR, NV, sums);
}

template <class Form, int MR, int NV, std::int64_t kLdx>
THRESHER_INLINE void ChainTile(const GemmTile& tile) {
  F16 acc[MR][NV];
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[r][v] = Zero();
  }
  if constexpr (MR > 3) {
    // y is on its way while the products are computed.
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) __builtin_prefetch(tile.y + r * tile.ldy + v * 16, 1, 3);
    }
  }
  const std::int64_t ldx = kLdx != 0 ? kLdx : tile.ldx;
  constexpr int kBases = (MR + kRowsOfABase - 1) / kRowsOfABase;
  const typename Form::X* x[kBases];
#pragma GCC unroll 4
  for (int i = 0; i < kBases; ++i) {
    x[i] = static_cast<const typename Form::X*>(tile.x) + kRowsOfABase * i * ldx;
  }
  const unsigned char* unit = tile.panel;
  const unsigned char* ahead = tile.ahead;
  const std::int64_t panel_bytes = tile.panel_bytes;
  const std::int64_t ahead_step = tile.ahead_step;
  for (std::int64_t i = 0; i < tile.units; ++i) {
    __builtin_prefetch(ahead, 0, 2);
    ahead += ahead_step;
    if constexpr (MR > 3) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        __builtin_prefetch(unit + (v / 2) * panel_bytes + (v % 2) * 64 + kPrefetchBytes, 0, 3);
      }
    }
    GemmUnit<Form, Form::kSteps, MR, NV>(unit, panel_bytes, x, ldx, acc);
    unit += Form::kUnitBytes;
#pragma GCC unroll 4
    for (int j = 0; j < kBases; ++j) x[j] += Form::kSteps;
  }
  if constexpr (Form::kSteps == 2) {
    if (tile.half_unit) GemmUnit<Form, 1, MR, NV>(unit, panel_bytes, x, ldx, acc);
  }
  GemmStore<Form, MR, NV>(tile, acc);
}

// Forms of groups: a group's first steps are one chain, its second steps another, both from +0;
// their sum is added to the element, which is one chain of groups over all of K. A group that K
// does not fill goes on with zeros, which may turn a sum of -0 into +0.
template <class Form, int MR, int NV>
static void GroupedBlock(const GemmTile& tile) {
  F16 total[MR][NV];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      total[r][v] =
          tile.first ? Zero() : LoadN(tile.y + r * tile.ldy + v * 16, tile.columns - v * 16);
    }
  }
  const auto* x = static_cast<const typename Form::X*>(tile.x);
  const unsigned char* unit = tile.panel;
  for (std::int64_t u = 0; u < tile.units; u += Form::kGroup) {
    F16 even[MR][NV], odd[MR][NV];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) even[r][v] = odd[r][v] = Zero();
    }
    const std::int64_t left = tile.units - u;
    const std::int64_t units = left < Form::kGroup ? left : Form::kGroup;
    for (std::int64_t i = 0; i < units; ++i, unit += Form::kUnitBytes, x += 2) {
      F16 w[NV][2];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) Form::Read(unit + v / 2 * tile.panel_bytes, v % 2, w[v]);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const F16 a = Form::Broadcast(x[r * tile.ldx]),
                  b = Form::Broadcast(x[r * tile.ldx + 1]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          even[r][v] = Form::Step(a, w[v][0], even[r][v]);
          odd[r][v] = Form::Step(b, w[v][1], odd[r][v]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        if (units < Form::kGroup) {
          even[r][v] = Form::Sum(even[r][v], Zero());
          odd[r][v] = Form::Sum(odd[r][v], Zero());
        }
        total[r][v] = Form::Sum(total[r][v], Form::Sum(even[r][v], odd[r][v]));
      }
    }
  }
  GemmTile done = tile;
  done.first = true;  // total continues y already
  GemmStore<Form, MR, NV>(done, total);
}

// A tile in blocks whose two chains for each element fit the registers.
template <class Form, int MR, int NV>
static void GroupedTile(const GemmTile& tile) {
  if (tile.columns <= 0) return;
  if constexpr (NV > kGroupVecs) {
    GroupedTile<Form, MR, kGroupVecs>(tile);
    GemmTile rest = tile;
    rest.panel += kGroupVecs == 1 ? Form::kUnitBytes / 2 : kGroupVecs / 2 * tile.panel_bytes;
    if (kGroupVecs == 1 && NV % 2 == 1) rest.panel += tile.panel_bytes - Form::kUnitBytes;
    rest.columns -= kGroupVecs * 16;
    rest.y += kGroupVecs * 16;
    if (rest.bias != nullptr) rest.bias += kGroupVecs * 16;
    GroupedTile<Form, MR, NV - kGroupVecs>(rest);
  } else if constexpr (MR > kGroupRows) {
    GroupedTile<Form, kGroupRows, NV>(tile);
    GemmTile rest = tile;
    rest.x = static_cast<const typename Form::X*>(tile.x) + kGroupRows * tile.ldx;
    rest.y += kGroupRows * tile.ldy;
    GroupedTile<Form, MR - kGroupRows, NV>(rest);
  } else {
    GroupedBlock<Form, MR, NV>(tile);
  }
}

// kLdx: tile.ldx where it is known, which saves registers and instructions; else 0.
template <class Form, int MR, int NV, std::int64_t kLdx = kTileLd>
static void GemmMicro(const GemmTile& tile) {
  if constexpr (Form::kGroup > 0) {
    GroupedTile<Form, MR, NV>(tile);
  } else {
    ChainTile<Form, MR, NV, kLdx>(tile);
  }
}

using GemmMicroFunction = void (*)(const GemmTile&);

// The tile function for `rows` (1 to kGemmRows) rows.
template <class Form, int NV, std::int64_t kLdx, int MR = kGemmRows>
static GemmMicroFunction MicroFor(std::int64_t rows) {
  if constexpr (MR > 1) {
    if (rows < MR) return MicroFor<Form, NV, kLdx, MR - 1>(rows);
  }
  return GemmMicro<Form, MR, NV, kLdx>;
}

}  // namespace thresher::kernels::THRESHER_VARIANT
