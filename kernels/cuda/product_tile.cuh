#pragma once

#include "kernels/cuda/panel.cuh"

// The product for many rows: a block has a tile of rows x columns, a thread 8 x 8 of it; x and the
// panels pass through shared memory, 16 depths at a time, the next ones on their way in registers.
namespace thresher::kernels::cuda {

inline constexpr int kDepths = 16;      // of a step
inline constexpr int kTileBlock = 256;  // threads

template <int kRowThreads>
struct ProductShape {
  static constexpr int kColumnThreads = kTileBlock / kRowThreads;
  static constexpr int kRows = kRowThreads * 8, kColumns = kColumnThreads * 8;
  static constexpr int kLdx = kRows + 4;  // rows of x side by side; spread over the banks
  static constexpr int kXs = kRows * kDepths / kTileBlock;                 // values a thread loads
  static constexpr int kPieces = kColumns / 4 * kDepths / 2 / kTileBlock;  // likewise
  static constexpr std::size_t kFloats = kDepths * (kLdx + kColumns);      // of shared memory

  // Row and column within the tile of a thread's element (r, c), r and c in [0, 8).
  static THRESHER_DEVICE int Row(int r) {
    return static_cast<int>(threadIdx.x) / kColumnThreads * 4 + r % 4 + r / 4 * (kRows / 2);
  }
  static THRESHER_DEVICE int Column(int c) {
    return static_cast<int>(threadIdx.x) % kColumnThreads * 4 + c % 4 + c / 4 * (kColumns / 2);
  }
};

// element(row, column, r, c) for each of the thread's elements of the tile at (row0, column0) that
// lies within rows x columns.
template <class Shape, class Element>
THRESHER_DEVICE void ForEachInTile(std::int64_t row0, std::int64_t rows, std::int64_t column0,
                                   std::int64_t columns, const Element& element) {
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    const std::int64_t row = row0 + Shape::Row(r);
    if (row >= rows) continue;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const std::int64_t column = column0 + Shape::Column(c);
      if (column < columns) element(row, column, r, c);
    }
  }
}

// What is multiplied: `rows` (at most kRows) rows of x, and the columns of `panels` panels (fewer
// than the tile's count as zero).
struct ProductInput {
  const float* x;
  std::int64_t ldx, rows;
  const char* w;  // the first panel
  std::int64_t panels, panel_bytes, k;
};

// A thread's share of one step.
template <class Shape>
struct ProductStep {
  float x[Shape::kXs];
  PanelPiece w[Shape::kPieces];
};

template <class Shape, WeightType kType>
THRESHER_DEVICE void FetchStep(const ProductInput& in, std::int64_t i, ProductStep<Shape>* step) {
  const int thread = static_cast<int>(threadIdx.x), depth = thread % kDepths;
#pragma unroll
  for (int n = 0; n < Shape::kXs; ++n) {
    const int row = thread / kDepths + n * (kTileBlock / kDepths);
    const bool there = row < in.rows && i + depth < in.k;
    step->x[n] = there ? in.x[row * in.ldx + i + depth] : 0.0f;
  }
#pragma unroll
  for (int n = 0; n < Shape::kPieces; ++n) {
    const int at = thread + n * kTileBlock;  // (pair of depths, four columns)
    const int column = at % (Shape::kColumns / 4) * 4, pair = at / (Shape::kColumns / 4);
    const int panel = column / static_cast<int>(kGemmPanel);
    step->w[n] = PanelPiece{};
    if (panel >= in.panels) continue;
    step->w[n] = LoadPiece<kType>(in.w + panel * in.panel_bytes,
                                  column % static_cast<int>(kGemmPanel), i + pair * 2, in.k);
  }
}

// shared: x as [kDepths][kLdx], then w as [kDepths][kColumns].
template <class Shape>
THRESHER_DEVICE void PutStep(const ProductStep<Shape>& step, float* shared) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int n = 0; n < Shape::kXs; ++n) {
    shared[thread % kDepths * Shape::kLdx + thread / kDepths + n * (kTileBlock / kDepths)] =
        step.x[n];
  }
  float* w = shared + kDepths * Shape::kLdx;
#pragma unroll
  for (int n = 0; n < Shape::kPieces; ++n) {
    const int at = thread + n * kTileBlock;
    const int column = at % (Shape::kColumns / 4) * 4, pair = at / (Shape::kColumns / 4);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float(&four)[4] = step.w[n].at[e];
      simt::StoreAs(w + (pair * 2 + e) * Shape::kColumns + column,
                    float4{four[0], four[1], four[2], four[3]});
    }
  }
}

THRESHER_DEVICE void LoadEight(const float* from, int half, float (&out)[8]) {
  const float4 low = simt::LoadAs<float4>(from), high = simt::LoadAs<float4>(from + half);
  out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
  out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
}

// The thread's chains continued by one depth: a [.., kRows] and b [.., kColumns] in shared memory.
template <class Shape>
THRESHER_DEVICE void MultiplyDepth(const float* a, const float* b, float (&chain)[8][8]) {
  float x[8], w[8];
  LoadEight(a + Shape::Row(0), Shape::kRows / 2, x);
  LoadEight(b + Shape::Column(0), Shape::kColumns / 2, w);
#pragma unroll
  for (int r = 0; r < 8; ++r) {
#pragma unroll
    for (int c = 0; c < 8; ++c) chain[r][c] = simt::Fma(x[r], w[c], chain[r][c]);
  }
}

template <class Shape>
THRESHER_DEVICE void MultiplyStep(const float* shared, int depths, float (&chain)[8][8]) {
  const float* w = shared + kDepths * Shape::kLdx;
  if (depths == kDepths) {
#pragma unroll
    for (int i = 0; i < kDepths; ++i) {
      MultiplyDepth<Shape>(shared + i * Shape::kLdx, w + i * Shape::kColumns, chain);
    }
    return;
  }
  for (int i = 0; i < depths; ++i) {
    MultiplyDepth<Shape>(shared + i * Shape::kLdx, w + i * Shape::kColumns, chain);
  }
}

// store(chain, first, last) for every chunk of kChunk depths ascending, with the thread's chains
// over it. shared: Shape::kFloats. All threads of the block call it.
template <class Shape, WeightType kType, std::int64_t kChunk = kGemmKChunk, class Store>
THRESHER_DEVICE void MultiplyTile(const ProductInput& in, float* shared, const Store& store) {
  static_assert(kChunk % kDepths == 0);
  float chain[8][8] = {};
  ProductStep<Shape> step;
  FetchStep<Shape, kType>(in, 0, &step);
  std::int64_t i = 0;
  do {
    __syncthreads();
    PutStep<Shape>(step, shared);
    __syncthreads();
    const int depths = in.k - i < kDepths ? static_cast<int>(in.k - i) : kDepths;
    const bool first = i < kChunk;
    i += kDepths;
    if (i < in.k) FetchStep<Shape, kType>(in, i, &step);
    MultiplyStep<Shape>(shared, depths, chain);
    if (i < in.k && i % kChunk != 0) continue;
    store(chain, first, i >= in.k);
#pragma unroll
    for (int r = 0; r < 8; ++r) {
#pragma unroll
      for (int c = 0; c < 8; ++c) chain[r][c] = 0;
    }
  } while (i < in.k);
}

}  // namespace thresher::kernels::cuda
