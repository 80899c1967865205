#pragma once

#include <cstdint>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/weight_type.h"
#include "kernels/cuda/simt.h"

// One element of a product, as a thread computes it: the readable form of what the product_*.cuh
// do.
namespace thresher::kernels::cuda {

// The value of a binary16.
THRESHER_DEVICE float HalfValue(std::uint32_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return simt::FloatOf(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // As a binary32 the same bits stand for 2^-112 of the value: exact, denormals included.
  const float value = simt::FloatOf(magnitude << 13) * 0x1p112f;
  return sign != 0 ? -value : value;
}

// W[column, i] of a packed panel, widened exactly. panel: the image of the 32 columns.
THRESHER_DEVICE float PanelValue(const void* panel, WeightType type, std::int64_t column,
                                 std::int64_t i) {
  if (type == WeightType::kF32) return static_cast<const float*>(panel)[i * kGemmPanel + column];
  const auto* halves = static_cast<const std::uint16_t*>(panel);
  if (type == WeightType::kF16) return HalfValue(halves[i * kGemmPanel + column]);
  const std::uint32_t pair = halves[(i / 2 * kGemmPanel + column) * 2 + i % 2];
  return simt::FloatOf(pair << 16);
}

// Bytes of a panel over K.
THRESHER_DEVICE std::int64_t PanelBytesOf(WeightType type, std::int64_t k) {
  const std::int64_t depth = type == WeightType::kBf16 ? (k + 1) / 2 * 2 : k;
  return depth * kGemmPanel * (type == WeightType::kF32 ? 4 : 2);
}

// sum over k of x[k] W[column, k] + bias: a chain from +0 for each chunk, the chunks ascending.
THRESHER_DEVICE float GemmElement(std::int64_t k, const float* x, const void* w, WeightType type,
                                  std::int64_t column, const float* bias) {
  const char* panel = static_cast<const char*>(w) + column / kGemmPanel * PanelBytesOf(type, k);
  float total = 0;
  std::int64_t i = 0;
  do {
    const std::int64_t end = i + kGemmKChunk < k ? i + kGemmKChunk : k;
    const bool first = i == 0;
    float chain = 0;
    for (; i < end; ++i) {
      chain = simt::Fma(x[i], PanelValue(panel, type, column % kGemmPanel, i), chain);
    }
    total = first ? chain : simt::Add(total, chain);
  } while (i < k);
  return bias == nullptr ? total : simt::Add(total, bias[column]);
}

// dw continued by a chain over tokens.
THRESHER_DEVICE float WeightGradElement(std::int64_t t, const float* dy, std::int64_t lddy,
                                        const float* x, std::int64_t ldx, float dw) {
  for (std::int64_t i = 0; i < t; ++i) dw = simt::Fma(dy[i * lddy], x[i * ldx], dw);
  return dw;
}

}  // namespace thresher::kernels::cuda
