#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/data/trajectory.h"
#include "learner/advantage.h"

namespace thresher::learner {

// A reward that comes with a token before the outcome does; `row` predicts that token.
struct StepReward {
  std::uint32_t row = 0;
  double value = 0;
};

// A trajectory's rewards at positions, by ascending rows. Each comes with the last loss token at or
// before its position (what an environment writes after it takes no time); one that lies before the
// first brings nothing, for the policy had no part in it. in_loss: of a TrainSequence.
std::vector<StepReward> StepRewardsOf(const Trajectory& trajectory,
                                      std::span<const std::uint8_t> in_loss);

// What is taken off each reward of a group, and what it is multiplied with then.
struct RewardScale {
  double mean = 0, scale = 0;
};
// Of all rewards of a group, those of steps and outcomes alike: kGroup divides by their standard
// deviation (n - 1) + 1e-6, kGroupMean by nothing. Equal rewards: scale 0.
RewardScale RewardScaleOf(Estimator estimator, std::span<const double> rewards);

// Of each row that is in the loss, what it and all after it bring, the outcome included, each
// scaled; 0 of the others. Process supervision: Shao et al. 2024, arXiv:2402.03300, section 4.1.3.
std::vector<double> ProcessAdvantages(const RewardScale& scale, std::span<const StepReward> steps,
                                      double outcome, std::span<const std::uint8_t> in_loss);

}  // namespace thresher::learner
