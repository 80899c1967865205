#pragma once

#include <cstdint>

#include "kernels/cuda/simt.h"

// bf16 as bits.
namespace thresher::kernels::cuda {

// Rounded to nearest, ties to even; a NaN stays one.
THRESHER_DEVICE std::uint16_t Bf16Bits(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x0040u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
// Two at once; which NaN a NaN becomes is the device's choice.
THRESHER_DEVICE std::uint32_t Bf16Pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return Bf16Bits(first) | std::uint32_t{Bf16Bits(second)} << 16;
#endif
}
THRESHER_DEVICE float Bf16Value(std::uint16_t bits) {
  return simt::FloatOf(std::uint32_t{bits} << 16);
}

}  // namespace thresher::kernels::cuda
