#include "kernels/cpu/rmsnorm.h"

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

void RmsNormForward(std::int64_t t, std::int64_t d, const float* x, const float* weight, float eps,
                    float* y, float* inv_rms) {
  Require(t >= 0 && d > 0, "RmsNormForward: shape");
  const ScopedFpEnv env;
  ActiveTable().rmsnorm_forward(t, d, x, weight, eps, y, inv_rms);
}

void RmsNormBackward(std::int64_t t, std::int64_t d, const float* x, const float* weight,
                     const float* inv_rms, const float* dy, float* dx, float* dweight) {
  Require(t >= 0 && d > 0 && dx != x, "RmsNormBackward: shape, or dx is x");
  const ScopedFpEnv env;
  ActiveTable().rmsnorm_backward(t, d, x, weight, inv_rms, dy, dx, dweight);
}

}  // namespace thresher::kernels
