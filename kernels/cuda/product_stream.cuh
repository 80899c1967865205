#pragma once

#include "kernels/cuda/panel.cuh"

// The product for few rows: a warp has the columns of a panel, a lane a column, and streams the
// panel once for all rows.
namespace thresher::kernels::cuda {

inline constexpr int kStage = 32;  // depths whose x lies in shared memory

// Who share a stage of x.
struct WarpTeam {
  static THRESHER_DEVICE int Rank() { return static_cast<int>(threadIdx.x) % 32; }
  static THRESHER_DEVICE int Size() { return 32; }
  static THRESHER_DEVICE void Meet() { __syncwarp(); }
};
struct BlockTeam {
  static THRESHER_DEVICE int Rank() { return static_cast<int>(threadIdx.x); }
  static THRESHER_DEVICE int Size() { return static_cast<int>(blockDim.x); }
  static THRESHER_DEVICE void Meet() { __syncthreads(); }
};

// chain[r] = the fma chain from +0 over depths [begin, end) (begin: even; end <= k) of row r of x
// and the lane's column of the panel. stage: [kRows, kStage] floats of shared memory, the team's.
// Rows at or beyond `rows` (at most kRows) give undefined values.
template <WeightType kType, int kRows, class Team>
THRESHER_DEVICE void StreamChunk(const float* x, std::int64_t ldx, std::int64_t rows,
                                 const void* panel, std::int64_t k, std::int64_t begin,
                                 std::int64_t end, float* stage, float (&chain)[kRows]) {
  const int column = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (float& sum : chain) sum = 0;
  for (std::int64_t i = begin; i < end; i += kStage) {
    float w[kStage];
    LoadColumn<kType>(panel, column, i, k, w);
    Team::Meet();  // the stage before this one has been used
    for (int at = Team::Rank(); at < kRows * kStage; at += Team::Size()) {
      const int r = at / kStage, c = at % kStage;
      stage[at] = r < rows && i + c < end ? x[r * ldx + i + c] : 0.0f;
    }
    Team::Meet();
    const int left = end - i < kStage ? static_cast<int>(end - i) : kStage;
#pragma unroll
    for (int c = 0; c < kStage; c += 4) {
      if (c >= left) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float4 a = simt::LoadAs<float4>(stage + r * kStage + c);
        chain[r] = simt::Fma(a.x, w[c], chain[r]);
        if (c + 1 < left) chain[r] = simt::Fma(a.y, w[c + 1], chain[r]);
        if (c + 2 < left) chain[r] = simt::Fma(a.z, w[c + 2], chain[r]);
        if (c + 3 < left) chain[r] = simt::Fma(a.w, w[c + 3], chain[r]);
      }
    }
  }
}

// The same over all of K: the chunks' chains added ascending.
template <WeightType kType, int kRows, class Team>
THRESHER_DEVICE void StreamColumn(const float* x, std::int64_t ldx, std::int64_t rows,
                                  const void* panel, std::int64_t k, float* stage,
                                  float (&total)[kRows]) {
#pragma unroll
  for (float& sum : total) sum = 0;
  for (std::int64_t begin = 0; begin < k; begin += kGemmKChunk) {
    const std::int64_t end = begin + kGemmKChunk < k ? begin + kGemmKChunk : k;
    float chain[kRows];
    StreamChunk<kType, kRows, Team>(x, ldx, rows, panel, k, begin, end, stage, chain);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      total[r] = begin == 0 ? chain[r] : simt::Add(total[r], chain[r]);
    }
  }
}

}  // namespace thresher::kernels::cuda
