#pragma once

#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

THRESHER_FUNCTION void RopeApply(std::int64_t t, std::int64_t heads, std::int64_t head_dim,
                      const std::int32_t* positions, const float* cos, const float* sin, float* x,
                      std::int64_t ldx, bool inverse) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t i = 0; i < t; ++i) {
    const float* cos_row = cos + positions[i] * half;
    const float* sin_row = sin + positions[i] * half;
    for (std::int64_t h = 0; h < heads; ++h) {
      float* x1 = x + i * ldx + h * head_dim;
      float* x2 = x1 + half;
      for (std::int64_t c = 0; c < half; c += 16) {
        const std::int64_t n = half - c;
        const F16 cs = LoadN(cos_row + c, n);
        const F16 s = LoadN(sin_row + c, n);
        const F16 sn = inverse ? Sub(Zero(), s) : s;
        const F16 a = LoadN(x1 + c, n);
        const F16 b = LoadN(x2 + c, n);
        StoreN(x1 + c, Fnma(b, sn, Mul(a, cs)), n);
        StoreN(x2 + c, Fma(a, sn, Mul(b, cs)), n);
      }
    }
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
