#pragma once

#include "kernels/cuda/attention_bf16_operands.cuh"
#include "kernels/cuda/attention_bf16_tile.cuh"

// The shared memory of a block of the backward pass (attention_bf16_backward.cu), and what is
// copied into it.
namespace thresher::kernels::cuda {

inline constexpr int kGradTile = 64;  // rows
inline constexpr int kGradTileBytes = kGradTile * hopper::kStepBytes;

template <int kDimTiles_>
struct GradShape {
  static constexpr int kDimTiles = kDimTiles_;
  static constexpr int kDims = 64 * kDimTiles;
  static constexpr int kGroups = 2, kThreads = kGroups * hopper::kWarpgroup;
  static constexpr int kColumns = kGradTile;
  static constexpr int kRows = kGroups * kGradTile;  // of a block
  static constexpr int kMatrixBytes = kDimTiles * kGradTileBytes;
  // As MultiplyKeys sees it.
  static constexpr int kTileBytes = kGradTileBytes, kQueryTileBytes = kGradTileBytes;
};

struct GradTask {
  GradOperands from;
  AttentionBackwardArgs a;
  std::int64_t tiles;  // of kRows rows, of the longest sequence
};

// Shared memory: two matrices that a warpgroup keeps (q and dO, or k and v), two stages of the two
// that go by, each warpgroup's P and S, what is known of the queries in either place.
template <class Shape>
struct GradShared {
  unsigned char *kept, *stages, *weights;
  float2 *of_kept, *of_stage;

  static constexpr std::size_t kBytes =
      hopper::kTileAlignment + (2 * Shape::kGroups + 4) * Shape::kMatrixBytes +
      2 * Shape::kGroups * kGradTileBytes + (Shape::kRows + 2 * kGradTile) * sizeof(float2);

  THRESHER_DEVICE explicit GradShared(unsigned char* shared) {
    kept = hopper::AlignTile(shared);
    stages = kept + 2 * Shape::kGroups * Shape::kMatrixBytes;
    weights = stages + 4 * Shape::kMatrixBytes;
    of_kept = reinterpret_cast<float2*>(weights + 2 * Shape::kGroups * kGradTileBytes);
    of_stage = of_kept + Shape::kRows;
  }
  THRESHER_DEVICE unsigned char* Kept(int group, int which) const {
    return kept + (2 * group + which) * Shape::kMatrixBytes;
  }
  THRESHER_DEVICE unsigned char* Stage(int stage, int which) const {
    return stages + (2 * stage + which) * Shape::kMatrixBytes;
  }
  THRESHER_DEVICE unsigned char* Weights(int group, int which) const {
    return weights + (2 * group + which) * kGradTileBytes;
  }
};

// The sequence and rows of a block.
struct GradPlace {
  std::int64_t begin;  // the sequence's first row
  int length, first;   // of the sequence; the block's first row in it

  template <class Shape>
  static THRESHER_DEVICE GradPlace Of(const GradTask& task) {
    const std::int64_t sequence = blockIdx.x / task.tiles, begin = task.from.begin[sequence];
    return {begin, static_cast<int>(task.from.begin[sequence + 1] - begin),
            static_cast<int>(blockIdx.x % task.tiles) * Shape::kRows};
  }
};

// Starts the copy of rows [row, row + 64) of the sequence, of one head; behind its end are zeros.
template <class Shape>
THRESHER_DEVICE void StartMatrix(const std::uint16_t* matrix, int heads, int head, int head_dim,
                                 const GradPlace& place, int row, unsigned char* to) {
  constexpr int kUnits = Shape::kDims / 8;
  const std::int64_t ld = std::int64_t{heads} * head_dim;
  const std::uint16_t* from = matrix + (place.begin + row) * ld + head * head_dim;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kGradTile * kUnits; i += Shape::kThreads) {
    const int r = i / kUnits, unit = i % kUnits;
    if (unit * 8 >= head_dim) continue;
    const bool there = row + r < place.length;
    hopper::CopyPiece(to + UnitAt(r, unit, kGradTileBytes),
                      there ? from + r * ld + unit * 8 : matrix, there);
  }
}

// q and dO, or k and v, of 64 rows.
template <class Shape>
THRESHER_DEVICE void StartQueries(const GradTask& task, const GradPlace& place, int head, int row,
                                  unsigned char* q, unsigned char* dout, float2* of_query) {
  const GradOperands& from = task.from;
  StartMatrix<Shape>(from.q, from.heads, head, from.head_dim, place, row, q);
  StartMatrix<Shape>(from.dout, from.heads, head, from.head_dim, place, row, dout);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kGradTile) {
    const std::int64_t t = place.begin + row + thread;
    of_query[thread] =
        row + thread < place.length ? from.of_query[t * from.heads + head] : float2{0, 0};
  }
}
template <class Shape>
THRESHER_DEVICE void StartKeys(const GradTask& task, const GradPlace& place, int kv_head, int row,
                               unsigned char* k, unsigned char* v) {
  const GradOperands& from = task.from;
  StartMatrix<Shape>(from.k, from.kv_heads, kv_head, from.head_dim, place, row, k);
  StartMatrix<Shape>(from.v, from.kv_heads, kv_head, from.head_dim, place, row, v);
}

// Behind a head dimension that is no multiple of 64 stand zeros, which no copy touches.
template <class Shape>
THRESHER_DEVICE void ClearMatrices(const GradShared<Shape>& at, int head_dim) {
  if (head_dim == Shape::kDims) return;
  constexpr int kUnits = (2 * Shape::kGroups + 4) * Shape::kMatrixBytes / 16;
  for (int i = static_cast<int>(threadIdx.x); i < kUnits; i += Shape::kThreads) {
    simt::StoreAs(at.kept + i * 16, uint4{0, 0, 0, 0});
  }
  __syncthreads();
}

}  // namespace thresher::kernels::cuda
