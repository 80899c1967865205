#pragma once

#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/gemm_element.h"

// A weight in the type it is published in, rounded to nearest, ties to even; a NaN stays one.
namespace thresher::kernels::cuda {

// binary16 as bits. Beyond 65504 and half a step: infinity.
THRESHER_DEVICE std::uint16_t HalfBits(float value) {
  const std::uint32_t bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu;
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // 2^-14; steps of 2^-24: those of fp32 from 0.5 to 1
    half = __float_as_uint(simt::Add(simt::FloatOf(magnitude), 0.5f)) - 0x3f000000u;
  } else {
    const std::uint32_t moved = magnitude - ((127u - 15u) << 23);
    half = (moved + 0xfffu + (moved >> 13 & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

// Of the 16-bit types.
template <WeightType kType>
THRESHER_DEVICE std::uint16_t NarrowBits(float value) {
  static_assert(kType != WeightType::kF32);
  if constexpr (kType == WeightType::kBf16) return Bf16Bits(value);
  return HalfBits(value);
}

// Rounded and widened again.
template <WeightType kType>
THRESHER_DEVICE float Rounded(float value) {
  if constexpr (kType == WeightType::kF32) return value;
  if constexpr (kType == WeightType::kBf16) return Bf16Value(Bf16Bits(value));
  if constexpr (kType == WeightType::kF16) return HalfValue(HalfBits(value));
}

// Calls `with` with the type as a constant.
template <class With>
cudaError_t WithWeightType(WeightType type, const With& with) {
  using Type = WeightType;
  if (type == Type::kF32) return with(std::integral_constant<Type, Type::kF32>());
  if (type == Type::kBf16) return with(std::integral_constant<Type, Type::kBf16>());
  return with(std::integral_constant<Type, Type::kF16>());
}

}  // namespace thresher::kernels::cuda
