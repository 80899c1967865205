#include "kernels/cpu/adamw.h"

#include <cmath>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

void AdamWUpdate(std::int64_t n, const AdamWFactors& factors, const float* gradient, float* weights,
                 float* first_moment, float* second_moment) {
  Require(n >= 0, "AdamWUpdate: n");
  const ScopedFpEnv environment;
  const AdamWFactors f = factors;
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * f.scale;
    const float m = f.beta1 * first_moment[i] + f.rest1 * g;
    const float v = f.beta2 * second_moment[i] + f.rest2 * (g * g);
    const float denominator = std::sqrt(v) * f.root_correction + f.epsilon;
    first_moment[i] = m;
    second_moment[i] = v;
    weights[i] = weights[i] * f.keep - f.step_size * (m / denominator);
  }
}

}  // namespace thresher::kernels
