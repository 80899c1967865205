#include "kernels/cpu/swiglu.h"

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

void SwigluForward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                   const float* up, std::int64_t ldu, float* y, std::int64_t ldy) {
  Require(t >= 0 && f >= 0 && ldg >= f && ldu >= f && ldy >= f, "SwigluForward: shape");
  const ScopedFpEnv env;
  ActiveTable().swiglu_forward(t, f, gate, ldg, up, ldu, y, ldy);
}

void SwigluBackward(std::int64_t t, std::int64_t f, const float* gate, std::int64_t ldg,
                    const float* up, std::int64_t ldu, const float* dy, std::int64_t lddy,
                    float* dgate, std::int64_t lddg, float* dup, std::int64_t lddu, float* y,
                    std::int64_t ldy) {
  Require(t >= 0 && f >= 0 && ldg >= f && ldu >= f && lddy >= f && lddg >= f && lddu >= f &&
              (y == nullptr || ldy >= f),
          "SwigluBackward: shape");
  const ScopedFpEnv env;
  ActiveTable().swiglu_backward(t, f, gate, ldg, up, ldu, dy, lddy, dgate, lddg, dup, lddu, y, ldy);
}

}  // namespace thresher::kernels
