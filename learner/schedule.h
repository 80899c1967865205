#pragma once

#include <cstdint>
#include <string>

namespace thresher::learner {

// Learning rate of one phase. Linear warm-up from 0 over `warmup_steps`, then `shape` from `peak` to
// `floor` at the phase's last step: constant | linear | cosine.
struct LearningRateSchedule {
  std::string shape;
  double peak = 0;
  double floor = 0;
  std::uint32_t warmup_steps = 0;
  std::uint32_t total_steps = 0;

  // `step` is 0-based within the phase. The first step of a warm-up of W has peak / W.
  double At(std::uint32_t step) const;
};

}  // namespace thresher::learner
