#include "kernels/cpu/gemm.h"

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

void Gemm(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
          PackedMatrix w, const float* bias, float* y, std::int64_t ldy) {
  Require(t >= 0 && n >= 0 && k >= 0 && ldx >= k && ldy >= n, "Gemm: shape");
  const ScopedFpEnv env;
  ActiveTable().gemm(t, n, k, x, ldx, w, bias, y, ldy);
}

void GemmAccumulateWeightGrad(std::int64_t t, std::int64_t n, std::int64_t k, const float* dy,
                              std::int64_t lddy, const float* x, std::int64_t ldx, float* dw) {
  Require(t >= 0 && n >= 0 && k >= 0 && lddy >= n && ldx >= k, "GemmAccumulateWeightGrad: shape");
  const ScopedFpEnv env;
  ActiveTable().weight_grad(t, n, k, dy, lddy, x, ldx, dw, k);
}

void BiasGrad(std::int64_t t, std::int64_t n, const float* dy, std::int64_t lddy, float* dbias) {
  Require(t >= 0 && n >= 0 && lddy >= n, "BiasGrad: shape");
  const ScopedFpEnv env;
  ActiveTable().bias_grad(t, n, dy, lddy, dbias);
}

}  // namespace thresher::kernels
