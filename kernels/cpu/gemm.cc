#include "kernels/cpu/gemm.h"

#include <algorithm>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

std::size_t PackedSize(std::int64_t n, std::int64_t k) {
  const std::int64_t panels = (n + kGemmPanel - 1) / kGemmPanel;
  return static_cast<std::size_t>(panels * kGemmPanel * k);
}

void PackWeights(std::int64_t n, std::int64_t k, const float* w, float* packed) {
  for (std::int64_t n0 = 0; n0 < n; n0 += kGemmPanel) {
    const std::int64_t columns = std::min(kGemmPanel, n - n0);
    for (std::int64_t i = 0; i < k; ++i, packed += kGemmPanel) {
      for (std::int64_t c = 0; c < columns; ++c) packed[c] = w[(n0 + c) * k + i];
      std::fill(packed + columns, packed + kGemmPanel, 0.0f);
    }
  }
}

void PackWeightsTransposed(std::int64_t n, std::int64_t k, const float* w, float* packed) {
  for (std::int64_t k0 = 0; k0 < k; k0 += kGemmPanel) {
    const std::int64_t columns = std::min(kGemmPanel, k - k0);
    for (std::int64_t i = 0; i < n; ++i, packed += kGemmPanel) {
      std::copy_n(w + i * k + k0, columns, packed);
      std::fill(packed + columns, packed + kGemmPanel, 0.0f);
    }
  }
}

void Gemm(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
          const float* packed, const float* bias, float* y, std::int64_t ldy) {
  Require(t >= 0 && n >= 0 && k >= 0 && ldx >= k && ldy >= n, "Gemm: shape");
  const ScopedFpEnv env;
  ActiveTable().gemm(t, n, k, x, ldx, packed, bias, y, ldy);
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
