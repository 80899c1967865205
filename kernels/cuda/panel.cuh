#pragma once

#include "kernels/cuda/gemm_element.h"

// Packed panels, read in wide pieces. The image lies at a multiple of 16 bytes.
namespace thresher::kernels::cuda {

// Columns column..column+3 (column: a multiple of 4) at depths i (even) and i + 1; zero at or
// beyond K.
struct PanelPiece {
  float at[2][4];
};

// Four neighbouring elements of a kF32 or kF16 panel.
template <WeightType kType>
THRESHER_DEVICE void WidenFour(const void* panel, std::int64_t at, float (&out)[4]) {
  if constexpr (kType == WeightType::kF32) {
    const float4 four = simt::LoadAs<float4>(static_cast<const float*>(panel) + at);
    out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
  } else {
    const uint2 four = simt::LoadAs<uint2>(static_cast<const std::uint16_t*>(panel) + at);
    out[0] = HalfValue(four.x & 0xffffu), out[1] = HalfValue(four.x >> 16);
    out[2] = HalfValue(four.y & 0xffffu), out[3] = HalfValue(four.y >> 16);
  }
}

template <WeightType kType>
THRESHER_DEVICE PanelPiece LoadPiece(const void* panel, int column, std::int64_t i,
                                     std::int64_t k) {
  PanelPiece piece{};
  if (i >= k) return piece;
  if constexpr (kType == WeightType::kBf16) {  // pairs: an odd K has been padded
    const auto* pairs = static_cast<const std::uint32_t*>(panel);
    const uint4 four = simt::LoadAs<uint4>(pairs + i / 2 * kGemmPanel + column);
    const std::uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      piece.at[0][c] = simt::FloatOf(words[c] << 16);
      piece.at[1][c] = simt::FloatOf(words[c] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      if (i + n < k) WidenFour<kType>(panel, (i + n) * kGemmPanel + column, piece.at[n]);
    }
  }
  return piece;
}

// One column at depths i (even) .. i + kDepths - 1; zero at or beyond K. A warp whose lanes have
// the columns of a panel reads whole lines.
template <WeightType kType, int kDepths>
THRESHER_DEVICE void LoadColumn(const void* panel, int column, std::int64_t i, std::int64_t k,
                                float (&w)[kDepths]) {
  if constexpr (kType == WeightType::kBf16) {
    const auto* pairs = static_cast<const std::uint32_t*>(panel) + i / 2 * kGemmPanel + column;
#pragma unroll
    for (int n = 0; n < kDepths; n += 2) {
      const std::uint32_t pair = i + n < k ? pairs[n / 2 * kGemmPanel] : 0;
      w[n] = simt::FloatOf(pair << 16);
      w[n + 1] = simt::FloatOf(pair & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int n = 0; n < kDepths; ++n) {
      w[n] = i + n < k ? PanelValue(panel, kType, column, i + n) : 0.0f;
    }
  }
}

}  // namespace thresher::kernels::cuda
