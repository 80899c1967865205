#pragma once

#include "kernels/cpu/math.inl"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// 1 + exp(-g): what silu and sigmoid divide by.
THRESHER_INLINE F16 SiluDivisor(F16 g) { return Add(Set1(1.0f), ExpV(Sub(Zero(), g))); }

THRESHER_FUNCTION void SwigluForward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                          const float* up, std::int64_t ldu, float* y, std::int64_t ldy) {
  for (std::int64_t i = 0; i < t; ++i) {
    for (std::int64_t c = 0; c < f; c += 16) {
      const std::int64_t n = f - c;
      const F16 g = LoadN(gate + i * ldg + c, n);
      const F16 silu = Div(g, SiluDivisor(g));
      StoreN(y + i * ldy + c, Mul(silu, LoadN(up + i * ldu + c, n)), n);
    }
  }
}

THRESHER_FUNCTION void SwigluBackward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                           const float* up, std::int64_t ldu, const float* dy, std::int64_t lddy,
                           float* dgate, std::int64_t lddg, float* dup, std::int64_t lddu, float* y,
                           std::int64_t ldy) {
  const F16 one = Set1(1.0f);
  for (std::int64_t i = 0; i < t; ++i) {
    for (std::int64_t c = 0; c < f; c += 16) {
      const std::int64_t n = f - c;
      const F16 g = LoadN(gate + i * ldg + c, n);
      const F16 u = LoadN(up + i * ldu + c, n);
      const F16 grad = LoadN(dy + i * lddy + c, n);
      const F16 divisor = SiluDivisor(g);
      const F16 s = Div(one, divisor);
      if (y != nullptr) StoreN(y + i * ldy + c, Mul(Div(g, divisor), u), n);
      const F16 slope = Mul(s, Fma(g, Sub(one, s), one));
      StoreN(dgate + i * lddg + c, Mul(Mul(grad, u), slope), n);
      StoreN(dup + i * lddu + c, Mul(grad, Mul(g, s)), n);
    }
  }
}

// y += x, elementwise.
THRESHER_FUNCTION void AddRows(std::int64_t n, float* y, const float* x) {
  for (std::int64_t c = 0; c < n; c += 16) {
    StoreN(y + c, Add(LoadN(y + c, n - c), LoadN(x + c, n - c)), n - c);
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
