#pragma once

#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

THRESHER_FUNCTION void RmsNormForward(std::int64_t t, std::int64_t d, const float* x, const float* weight,
                           float eps, float* y, float* inv_rms) {
  for (std::int64_t i = 0; i < t; ++i, x += d, y += d) {
    F16 squares = Zero();
    for (std::int64_t c = 0; c < d; c += 16) {
      const F16 a = LoadN(x + c, d - c);
      squares = Fma(a, a, squares);
    }
    const float mean = ReduceAdd(squares) / static_cast<float>(d);
    const float inv = 1.0f / SqrtScalar(mean + eps);
    for (std::int64_t c = 0; c < d; c += 16) {
      const F16 x_hat = Mul(LoadN(x + c, d - c), Set1(inv));
      StoreN(y + c, Mul(x_hat, LoadN(weight + c, d - c)), d - c);
    }
    if (inv_rms != nullptr) inv_rms[i] = inv;
  }
}

THRESHER_FUNCTION void RmsNormBackward(std::int64_t t, std::int64_t d, const float* x, const float* weight,
                            const float* inv_rms, const float* dy, float* dx, float* dweight) {
  for (std::int64_t i = 0; i < t; ++i, x += d, dy += d, dx += d) {
    const F16 inv = Set1(inv_rms[i]);
    F16 products = Zero();
    for (std::int64_t c = 0; c < d; c += 16) {
      const F16 x_hat = Mul(LoadN(x + c, d - c), inv);
      const F16 g = Mul(LoadN(dy + c, d - c), LoadN(weight + c, d - c));
      products = Fma(g, x_hat, products);
    }
    const F16 mean = Set1(ReduceAdd(products) / static_cast<float>(d));
    for (std::int64_t c = 0; c < d; c += 16) {
      const F16 x_hat = Mul(LoadN(x + c, d - c), inv);
      const F16 grad = LoadN(dy + c, d - c);
      const F16 g = Mul(grad, LoadN(weight + c, d - c));
      if (dweight != nullptr) {
        StoreN(dweight + c, Fma(grad, x_hat, LoadN(dweight + c, d - c)), d - c);
      }
      StoreN(dx + c, Mul(inv, Fnma(x_hat, mean, g)), d - c);
    }
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
