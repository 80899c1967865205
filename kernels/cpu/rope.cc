#include "kernels/cpu/rope.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

void RopeTable(std::int64_t max_positions, std::int64_t head_dim, double theta, float* cos,
               float* sin) {
  Require(head_dim > 0 && head_dim % 2 == 0 && theta > 0, "RopeTable: shape");
  std::vector<float> inv_freq;
  for (std::int64_t i = 0; i < head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(head_dim);
    inv_freq.push_back(static_cast<float>(1.0 / std::pow(theta, exponent)));
  }
  RopeTable(max_positions, head_dim, inv_freq.data(), cos, sin);
}

void RopeTable(std::int64_t max_positions, std::int64_t head_dim, const float* inv_freq, float* cos,
               float* sin) {
  Require(max_positions >= 0 && head_dim > 0 && head_dim % 2 == 0, "RopeTable: shape");
  const ScopedFpEnv env;
  const std::int64_t half = head_dim / 2;
  for (std::int64_t p = 0; p < max_positions; ++p) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * inv_freq[i];
      cos[p * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sin[p * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

void RopeApply(std::int64_t t, std::int64_t heads, std::int64_t head_dim,
               const std::int32_t* positions, const float* cos, const float* sin, float* x,
               std::int64_t ldx, bool inverse) {
  Require(t >= 0 && heads >= 0 && head_dim % 2 == 0 && ldx >= heads * head_dim, "RopeApply: shape");
  const ScopedFpEnv env;
  ActiveTable().rope_apply(t, heads, head_dim, positions, cos, sin, x, ldx, inverse);
}

}  // namespace thresher::kernels
