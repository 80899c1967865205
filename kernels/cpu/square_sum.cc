#include "kernels/cpu/square_sum.h"

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

double SquareSum(std::int64_t n, const float* x) {
  Require(n >= 0, "SquareSum: n");
  const ScopedFpEnv environment;
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace thresher::kernels
