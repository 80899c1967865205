#pragma once

#include "kernels/cpu/value_head.h"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

THRESHER_FUNCTION void ValueHeadForward(std::int64_t t, std::int64_t d, const float* hidden,
                                        std::int64_t ldh, const float* weight, const float* bias,
                                        float* value) {
  for (std::int64_t i = 0; i < t; ++i, hidden += ldh) {
    F16 sum = Zero();
    for (std::int64_t c = 0; c < d; c += 16) {
      sum = Fma(LoadN(hidden + c, d - c), LoadN(weight + c, d - c), sum);
    }
    value[i] = bias != nullptr ? ReduceAdd(sum) + *bias : ReduceAdd(sum);
  }
}

// y[c] += a * x[c].
THRESHER_FUNCTION void AddScaled(std::int64_t n, float a, const float* x, float* y) {
  for (std::int64_t c = 0; c < n; c += 16) {
    StoreN(y + c, Fma(Set1(a), LoadN(x + c, n - c), LoadN(y + c, n - c)), n - c);
  }
}

THRESHER_FUNCTION void ValueHeadBackward(const ValueHeadBackwardArgs& a) {
  for (std::int64_t i = 0; i < a.t; ++i) {
    const float g = a.dvalue[i];
    if (g == 0.0f) continue;
    if (a.dhidden != nullptr) AddScaled(a.d, g, a.weight, a.dhidden + i * a.lddh);
    if (a.dweight != nullptr) AddScaled(a.d, g, a.hidden + i * a.ldh, a.dweight);
    if (a.dbias != nullptr) *a.dbias += g;
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
