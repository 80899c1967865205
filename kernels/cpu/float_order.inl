#pragma once

// The order of all floats as integers: what a bisection over scores goes through.
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

THRESHER_INLINE bool IsFinite(float x) { return x - x == 0.0f; }

// The bits of x as an integer in the same order. No NaN, no -0.
THRESHER_INLINE std::uint32_t OrderOf(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

THRESHER_INLINE float FromOrder(std::uint32_t order) {
  const std::uint32_t bits = order >> 31 != 0 ? order & 0x7fffffffu : ~order;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// A value between two, the lower one if there is none: the mean of close ones, else the one half
// way in the order of all floats.
THRESHER_INLINE float Between(float low, float high) {
  const float mean = low + (high - low) * 0.5f;
  if (high - low <= 64.0f && mean > low && mean < high) return mean;
  const std::uint32_t order = OrderOf(low);
  return FromOrder(order + (OrderOf(high) - order) / 2);
}

}  // namespace thresher::kernels::THRESHER_VARIANT
