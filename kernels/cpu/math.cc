#include "kernels/cpu/math.h"

#include <cmath>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"

namespace thresher::kernels {

void Exp(std::int64_t n, const float* x, float* y) {
  const ScopedFpEnv env;
  ActiveTable().exp(n, x, y);
}

void Log(std::int64_t n, const float* x, float* y) {
  const ScopedFpEnv env;
  ActiveTable().log(n, x, y);
}

float Exp(float x) {
  float y;
  Exp(1, &x, &y);
  return y;
}

float Log(float x) {
  float y;
  Log(1, &x, &y);
  return y;
}

float Rsqrt(float x) {
  const ScopedFpEnv env;
  const volatile float in = x;  // volatile: neither operation may leave the pinned region
  const volatile float out = 1.0f / std::sqrt(in);
  return out;
}

float Reciprocal(float x) {
  const ScopedFpEnv env;
  const volatile float in = x;
  const volatile float out = 1.0f / in;
  return out;
}

}  // namespace thresher::kernels
