#include "kernels/cuda/gemm_forms.cuh"
#include "kernels/cuda/product_tile.cuh"

namespace thresher::kernels::cuda {
namespace {

using Shape = ProductShape<16>;

// Block (x, y): tile x of the rows, y of the columns. Between chunks the sums lie in y itself.
template <WeightType kType>
__global__ void __launch_bounds__(kTileBlock) Tiles(GemmCall a) {
  const std::int64_t row0 = std::int64_t{blockIdx.x} * Shape::kRows;
  const std::int64_t column0 = std::int64_t{blockIdx.y} * Shape::kColumns;
  const std::int64_t panel0 = column0 / kGemmPanel;
  const ProductInput in{a.x + row0 * a.ldx,
                        a.ldx,
                        a.t - row0,
                        static_cast<const char*>(a.w.data) + panel0 * PanelBytesOf(kType, a.k),
                        (a.n + kGemmPanel - 1) / kGemmPanel - panel0,
                        PanelBytesOf(kType, a.k),
                        a.k};
  MultiplyTile<Shape, kType>(
      in, simt::SharedMemory<float>(), [&](const float(&chain)[8][8], bool first, bool last) {
        const bool bias = last && a.bias != nullptr;
        const auto add = [&](std::int64_t row, std::int64_t column, int r, int c) {
          float* y = a.y + row * a.ldy + column;
          const float total = first ? chain[r][c] : simt::Add(*y, chain[r][c]);
          *y = bias ? simt::Add(total, a.bias[column]) : total;
        };
        ForEachInTile<Shape>(row0, a.t, column0, a.n, add);
      });
}

template <WeightType kType>
cudaError_t TilesOf(cudaStream_t stream, const GemmCall& a) {
  return simt::Launch(stream,
                      {static_cast<unsigned>((a.t + Shape::kRows - 1) / Shape::kRows), kTileBlock,
                       Shape::kFloats * sizeof(float),
                       static_cast<unsigned>((a.n + Shape::kColumns - 1) / Shape::kColumns)},
                      Tiles<kType>, a);
}

// dw [n, k] += dy^T x.
struct GradCall {
  std::int64_t t, n, k;
  const float* dy;
  std::int64_t lddy;
  const float* x;
  std::int64_t ldx;
  float* dw;
};

// Tokens [t0, t0 + kDepths) of `columns` columns (at most kTileColumns), zero where there are none.
template <int kTileColumns>
__device__ void LoadTokens(const float* from, std::int64_t ld, std::int64_t tokens,
                           std::int64_t columns, int to_ld, float* to) {
  for (int at = static_cast<int>(threadIdx.x); at < kDepths * kTileColumns; at += kTileBlock) {
    const int i = at / kTileColumns, c = at % kTileColumns;
    to[i * to_ld + c] = i < tokens && c < columns ? from[i * ld + c] : 0.0f;
  }
}

// Block (x, y): tile x of K, y of N. Each element's chain goes through all tokens.
__global__ void __launch_bounds__(kTileBlock) GradTiles(GradCall a) {
  const std::int64_t row0 = std::int64_t{blockIdx.y} * Shape::kRows;
  const std::int64_t column0 = std::int64_t{blockIdx.x} * Shape::kColumns;
  float* dy = simt::SharedMemory<float>();
  float* x = dy + kDepths * Shape::kLdx;
  float chain[8][8] = {};
  const auto load = [&](std::int64_t row, std::int64_t column, int r, int c) {
    chain[r][c] = a.dw[row * a.k + column];
  };
  ForEachInTile<Shape>(row0, a.n, column0, a.k, load);
  for (std::int64_t i = 0; i < a.t; i += kDepths) {
    __syncthreads();
    LoadTokens<Shape::kRows>(a.dy + i * a.lddy + row0, a.lddy, a.t - i, a.n - row0, Shape::kLdx,
                             dy);
    LoadTokens<Shape::kColumns>(a.x + i * a.ldx + column0, a.ldx, a.t - i, a.k - column0,
                                Shape::kColumns, x);
    __syncthreads();
    MultiplyStep<Shape>(dy, a.t - i < kDepths ? static_cast<int>(a.t - i) : kDepths, chain);
  }
  const auto store = [&](std::int64_t row, std::int64_t column, int r, int c) {
    a.dw[row * a.k + column] = chain[r][c];
  };
  ForEachInTile<Shape>(row0, a.n, column0, a.k, store);
}

}  // namespace

cudaError_t GemmTile(cudaStream_t stream, const GemmCall& call) {
  switch (call.w.type) {
    case WeightType::kF32:
      return TilesOf<WeightType::kF32>(stream, call);
    case WeightType::kBf16:
      return TilesOf<WeightType::kBf16>(stream, call);
    case WeightType::kF16:
      return TilesOf<WeightType::kF16>(stream, call);
  }
  return cudaErrorInvalidValue;
}

std::int64_t GemmTileCount(std::int64_t t, std::int64_t n) {
  return (t + Shape::kRows - 1) / Shape::kRows * ((n + Shape::kColumns - 1) / Shape::kColumns);
}

cudaError_t WeightGradTile(cudaStream_t stream, std::int64_t t, std::int64_t n, std::int64_t k,
                           const float* dy, std::int64_t lddy, const float* x, std::int64_t ldx,
                           float* dw) {
  return simt::Launch(stream,
                      {static_cast<unsigned>((k + Shape::kColumns - 1) / Shape::kColumns),
                       kTileBlock, Shape::kFloats * sizeof(float),
                       static_cast<unsigned>((n + Shape::kRows - 1) / Shape::kRows)},
                      GradTiles, GradCall{t, n, k, dy, lddy, x, ldx, dw});
}

}  // namespace thresher::kernels::cuda
