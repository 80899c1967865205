#include "kernels/cpu/rope.h"

#include <cmath>
#include <vector>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

// The angle is reduced to r in [-pi/4, pi/4] by a multiple of pi/2, which stands as a sum of three
// doubles; the first fma is exact. Taylor's series follow, cut where a term is below 2^-60.
void SinCos(float angle, double* sin, double* cos) {
  constexpr double kHalfPi[] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54,
                                -0x1.f1976b7ed8fbcp-110};
  const double x = angle;
  Require(std::abs(x) <= 0x1p25, "SinCos: angle");
  const double turns = std::nearbyint(x * (1 / kHalfPi[0]));
  double r = x;
  for (double part : kHalfPi) r = std::fma(-turns, part, r);
  const double z = r * r;
  double s = 0, c = 0;
  for (int n = 18; n >= 2; n -= 2) {
    c = std::fma(-c, z, 1.0) / (n * (n - 1));  // of n!: what stands behind z^(n/2)
    s = std::fma(-s, z, 1.0) / (n * (n + 1));
  }
  c = std::fma(-c, z, 1.0);
  s = std::fma(-s * z, r, r);
  const auto quarter = static_cast<std::int64_t>(turns) & 3;
  *sin = (quarter & 1) != 0 ? c : s;
  *cos = (quarter & 1) != 0 ? s : c;
  if (quarter >= 2) *sin = -*sin;
  if (quarter == 1 || quarter == 2) *cos = -*cos;
}

void RopeTable(std::int64_t max_positions, std::int64_t head_dim, double theta, float* cos,
               float* sin) {
  Require(head_dim > 0 && head_dim % 2 == 0 && theta > 0, "RopeTable: shape");
  std::vector<float> inv_freq;
  for (std::int64_t i = 0; i < head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(head_dim);
    inv_freq.push_back(static_cast<float>(1.0 / std::pow(theta, exponent)));
  }
  RopeTable(0, max_positions, head_dim, inv_freq.data(), cos, sin);
}

void RopeTable(std::int64_t begin, std::int64_t end, std::int64_t head_dim, const float* inv_freq,
               float* cos, float* sin) {
  Require(begin >= 0 && end >= begin && head_dim > 0 && head_dim % 2 == 0, "RopeTable: shape");
  const ScopedFpEnv env;
  const std::int64_t half = head_dim / 2;
  for (std::int64_t p = begin; p < end; ++p) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * inv_freq[i];
      double sine = 0, cosine = 0;
      SinCos(angle, &sine, &cosine);
      cos[p * half + i] = static_cast<float>(cosine);
      sin[p * half + i] = static_cast<float>(sine);
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
