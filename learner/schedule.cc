#include "learner/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/base/check.h"

namespace thresher::learner {

double LearningRateSchedule::At(std::uint32_t step) const {
  if (step < warmup_steps) return peak * (step + 1.0) / warmup_steps;
  if (shape == "constant") return peak;
  double span = total_steps > warmup_steps + 1 ? total_steps - warmup_steps - 1.0 : 1.0;
  double progress = std::min(1.0, (step - warmup_steps) / span);
  if (shape == "linear") return peak + (floor - peak) * progress;
  THRESHER_CHECK(shape == "cosine", "schedule " + shape);
  return floor + (peak - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace thresher::learner
