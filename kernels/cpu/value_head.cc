#include "kernels/cpu/value_head.h"

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {

void ValueHeadForward(std::int64_t t, std::int64_t d, const float* hidden, std::int64_t ldh,
                      const float* weight, const float* bias, float* value) {
  Require(t >= 0 && d > 0 && ldh >= d, "ValueHeadForward: shape");
  const ScopedFpEnv env;
  ActiveTable().value_head_forward(t, d, hidden, ldh, weight, bias, value);
}

void ValueHeadBackward(const ValueHeadBackwardArgs& args) {
  Require(args.t >= 0 && args.d > 0 && args.ldh >= args.d, "ValueHeadBackward: shape");
  Require(args.dhidden == nullptr || (args.lddh >= args.d && args.dhidden != args.hidden),
          "ValueHeadBackward: rows of dhidden, or dhidden is hidden");
  const ScopedFpEnv env;
  ActiveTable().value_head_backward(args);
}

}  // namespace thresher::kernels
