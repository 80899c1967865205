#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

// Conversions between fp32 and the 16-bit types in which weights are stored: widening is exact,
// narrowing rounds to nearest even. Rounding mode and denormals are those of a new thread.
namespace thresher::model {

inline float Bf16ToFloat(std::uint16_t h) { return std::bit_cast<float>(std::uint32_t{h} << 16); }

// A NaN stays one. Beyond the largest bf16: infinity.
inline std::uint16_t FloatToBf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// The exponent is moved by integer arithmetic; that of a subnormal is normalised by the hardware.
inline float F16ToFloat(std::uint16_t h) {
  constexpr std::uint32_t kRebias = (127 - 15) << 23;
  const std::uint32_t magnitude = std::uint32_t{h} << 17 >> 4;  // exponent and mantissa in place
  const std::uint32_t exponent = magnitude & 0x0F800000;
  const auto subnormal = std::bit_cast<std::uint32_t>(
      std::bit_cast<float>(magnitude + kRebias + (1u << 23)) - 0x1p-14f);
  std::uint32_t bits = magnitude + kRebias;
  if (exponent == 0) bits = subnormal;
  if (exponent == 0x0F800000) bits += kRebias;  // infinity, NaN
  return std::bit_cast<float>(bits | (std::uint32_t{h} & 0x8000) << 16);
}

// A NaN stays one. Beyond the largest fp16, 65504 and half a step: infinity.
inline std::uint16_t FloatToF16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const float size = std::abs(x);
  std::uint32_t half = 0;
  if (std::isnan(x)) {
    half = 0x7E00;
  } else if (size >= 65520.0f) {
    half = 0x7C00;
  } else if (size < 0x1p-14f) {  // steps of 2^-24: those of fp32 from 0.5 to 1
    half = std::bit_cast<std::uint32_t>(size + 0.5f) - std::bit_cast<std::uint32_t>(0.5f);
  } else {
    const std::uint32_t magnitude = (bits & 0x7FFFFFFF) - ((127 - 15) << 23);
    half = (magnitude + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

}  // namespace thresher::model
