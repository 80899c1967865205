#pragma once

#include "kernels/cuda/attention_bf16.h"
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/kv_page.cuh"

// The shared memory of a block of cuda-bf16-sm90-v1's attention, and what is copied into it. All
// tiles have rows of 128 bytes under the 128-byte swizzle.
namespace thresher::kernels::cuda {

inline constexpr int kBf16Split = static_cast<int>(kAttentionSplit);  // positions of a tile
inline constexpr int kBf16SplitPages = kBf16Split / static_cast<int>(kKvPageSize);

// Dimensions in tiles of 64; warpgroups; columns (queries) of a warpgroup.
template <int kDimTiles_, int kGroups_, int kColumns_>
struct AttentionShape {
  static constexpr int kDimTiles = kDimTiles_;
  static constexpr int kGroups = kGroups_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kDims = 64 * kDimTiles;
  static constexpr int kQueries = kGroups * kColumns;
  static constexpr int kThreads = kGroups * hopper::kWarpgroup;
  static constexpr int kStages = 2;
  static_assert(kGroups <= 2);

  static constexpr int kTileBytes = kBf16Split * hopper::kStepBytes;  // of K or V, 64 dimensions
  static constexpr int kStageBytes = 2 * kDimTiles * kTileBytes;
  static constexpr int kQueryTileBytes = kColumns * hopper::kStepBytes;
  static constexpr int kQueryBytes = kDimTiles * kQueryTileBytes;       // of a warpgroup
  static constexpr int kWeightBytes = kBf16Split * hopper::kStepBytes;  // of a warpgroup
};

// What a warpgroup knows of its columns. Its thread c looks after column c; the sums stay with it.
template <int kColumns>
struct ColumnState {
  float warp_best[4][kColumns];  // of the split: each warp's largest a_j, its part of l
  float warp_sum[4][kColumns];
  float split_best[kColumns];       // m
  float2 factor[kColumns];          // x, y of the fold; in the end 1 / L
  std::int32_t position[kColumns];  // -1: no query
  float* out[kColumns];
};

template <class Shape>
struct AttentionShared {
  unsigned char *stages, *queries, *weights;
  ColumnState<Shape::kColumns>* columns;
  int* not_finite;  // not 0: values that are no finite numbers have been taken out

  static constexpr std::size_t kBytes =
      hopper::kTileAlignment + Shape::kStages * Shape::kStageBytes +
      Shape::kGroups *
          (Shape::kQueryBytes + Shape::kWeightBytes + sizeof(ColumnState<Shape::kColumns>)) +
      sizeof(int);

  THRESHER_DEVICE explicit AttentionShared(unsigned char* shared) {
    stages = hopper::AlignTile(shared);
    weights = stages + Shape::kStages * Shape::kStageBytes;
    queries = weights + Shape::kGroups * Shape::kWeightBytes;
    columns = reinterpret_cast<ColumnState<Shape::kColumns>*>(queries +
                                                              Shape::kGroups * Shape::kQueryBytes);
    not_finite = reinterpret_cast<int*>(columns + Shape::kGroups);
  }
  THRESHER_DEVICE unsigned char* Keys(int stage) const {
    return stages + stage * Shape::kStageBytes;
  }
  THRESHER_DEVICE unsigned char* Values(int stage) const {
    return Keys(stage) + Shape::kDimTiles * Shape::kTileBytes;
  }
};

// Byte of the 16-byte unit `unit` (8 values) of a row, in tiles of `tile_bytes` 64 values wide.
THRESHER_DEVICE int UnitAt(int row, int unit, int tile_bytes) {
  return unit / 8 * tile_bytes + row * hopper::kStepBytes + ((unit ^ row) % 8) * 16;
}

// One KV head of one sequence, up to `last_position`.
struct SplitSource {
  const std::uint16_t *k, *v;  // of all pages, at the KV head's part
  const std::int32_t* table;
  std::size_t page_stride;
  std::int64_t last_position;
  int head_dim;
};

THRESHER_DEVICE SplitSource SourceOf(const AttentionArgs& a, std::int64_t row, std::int64_t kv_head,
                                     std::int64_t last_position) {
  const std::int64_t head = kv_head * kKvPageSize * a.head_dim;
  return {static_cast<const std::uint16_t*>(a.kv.k) + head,
          static_cast<const std::uint16_t*>(a.kv.v) + head,
          TableOf(a.rows, row),
          a.kv.page_stride,
          last_position,
          static_cast<int>(a.head_dim)};
}

// Where the page of a position begins, in elements.
THRESHER_DEVICE std::size_t PageAt(const SplitSource& from, std::int64_t position) {
  return static_cast<std::size_t>(from.table[position / kKvPageSize]) * from.page_stride;
}

// Starts the copy of a split's keys and values into a stage, by all threads of the block: a group
// of pieces each. Positions behind the last one become zeros.
template <class Shape>
THRESHER_DEVICE void StartSplit(const AttentionShared<Shape>& at, const SplitSource& from,
                                int split, int stage) {
  constexpr int kUnits = Shape::kDims / 8, kPageUnits = static_cast<int>(kKvPageSize) * kUnits;
  static_assert(kBf16SplitPages * kPageUnits % Shape::kThreads == 0);
  const std::int64_t left = from.last_position - split * kBf16Split;  // place of the last one
  const std::int32_t* table = from.table + split * kBf16SplitPages;
#pragma unroll 1
  for (int i = 0; i < kBf16SplitPages * kPageUnits / Shape::kThreads; ++i) {
    const int piece = i * Shape::kThreads + static_cast<int>(threadIdx.x);
    const int page = piece / kPageUnits, in_page = piece % kPageUnits;
    const bool there = page * kKvPageSize <= left;
    const std::size_t base = there ? static_cast<std::size_t>(table[page]) * from.page_stride : 0;
    // Within a page keys are [units][16 positions], values [16 positions][units] of 16 bytes.
    const int key_unit = in_page / static_cast<int>(kKvPageSize);
    const int key_slot = in_page % static_cast<int>(kKvPageSize);
    const int key_row = page * static_cast<int>(kKvPageSize) + key_slot;
    if (key_unit * 8 < from.head_dim) {
      hopper::CopyPiece(at.Keys(stage) + UnitAt(key_row, key_unit, Shape::kTileBytes),
                        from.k + base + in_page * 8, key_row <= left);
    }
    const int unit = in_page % kUnits, slot = in_page / kUnits;
    const int row = page * static_cast<int>(kKvPageSize) + slot;
    if (unit * 8 < from.head_dim) {
      hopper::CopyPiece(at.Values(stage) + UnitAt(row, unit, Shape::kTileBytes),
                        from.v + base + slot * from.head_dim + unit * 8, row <= left);
    }
  }
  hopper::CommitPieces();
}

// Behind a head dimension that is no multiple of 64 stand zeros, which no copy touches. By the
// whole block, before the first copy.
template <class Shape>
THRESHER_DEVICE void ClearStages(const AttentionShared<Shape>& at, std::int64_t head_dim) {
  if (head_dim == Shape::kDims) return;
  constexpr int kUnits = Shape::kStages * Shape::kStageBytes / 16;
  for (int i = static_cast<int>(threadIdx.x); i < kUnits; i += Shape::kThreads) {
    simt::StoreAs(at.stages + i * 16, uint4{0, 0, 0, 0});
  }
  __syncthreads();
}

// A column's query (null: zeros), rounded, by as many threads as there are of the warpgroup.
// query(c): the head's q [Dh].
template <class Shape, class Query>
THRESHER_DEVICE void LoadQueries(unsigned char* tile, int head_dim, const Query& query) {
  constexpr int kUnits = Shape::kDims / 8;
  for (int i = static_cast<int>(threadIdx.x) % hopper::kWarpgroup; i < Shape::kColumns * kUnits;
       i += hopper::kWarpgroup) {
    const int column = i / kUnits, unit = i % kUnits;
    const float* q = query(column);
    uint4 rounded{0, 0, 0, 0};
    if (q != nullptr && unit * 8 < head_dim) {
      q += unit * 8;
      rounded = {Bf16Pair(q[0], q[1]), Bf16Pair(q[2], q[3]), Bf16Pair(q[4], q[5]),
                 Bf16Pair(q[6], q[7])};
    }
    simt::StoreAs(tile + UnitAt(column, unit, Shape::kQueryTileBytes), rounded);
  }
}

THRESHER_DEVICE bool IsFinite16(std::uint16_t value) { return (value & 0x7f80u) != 0x7f80u; }

// Takes values that are no finite numbers out of a tile, by the whole block; says whether there
// were any.
template <class Shape>
THRESHER_DEVICE bool TakeOutNotFinite(unsigned char* values) {
  bool found = false;
  constexpr int kPairs = Shape::kDimTiles * Shape::kTileBytes / 4;
  for (int i = static_cast<int>(threadIdx.x); i < kPairs; i += Shape::kThreads) {
    const auto pair = simt::LoadAs<std::uint32_t>(values + i * 4);
    std::uint32_t kept = IsFinite16(static_cast<std::uint16_t>(pair)) ? pair & 0xffffu : 0u;
    if (IsFinite16(static_cast<std::uint16_t>(pair >> 16))) kept |= pair & 0xffff0000u;
    if (kept == pair) continue;
    simt::StoreAs(values + i * 4, kept);
    found = true;
  }
  return found;
}

}  // namespace thresher::kernels::cuda
