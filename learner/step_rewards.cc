#include "learner/step_rewards.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace thresher::learner {

std::vector<StepReward> StepRewardsOf(const Trajectory& trajectory,
                                      std::span<const std::uint8_t> in_loss) {
  std::vector<StepReward> steps;
  for (const PositionReward& reward : trajectory.outcome.position_rewards) {
    std::size_t rows = std::min<std::size_t>(reward.position, in_loss.size());
    while (rows > 0 && in_loss[rows - 1] == 0) --rows;
    if (rows > 0) steps.push_back({static_cast<std::uint32_t>(rows - 1), reward.value});
  }
  std::ranges::stable_sort(steps, {}, &StepReward::row);
  return steps;
}

RewardScale RewardScaleOf(Estimator estimator, std::span<const double> rewards) {
  THRESHER_CHECK(estimator == Estimator::kGroup || estimator == Estimator::kGroupMean,
                 "an estimator that does not know steps");
  const auto differs = [&](double reward) { return reward != rewards.front(); };
  if (std::ranges::none_of(rewards, differs)) return {};
  const auto count = static_cast<double>(rewards.size());
  RewardScale out;
  for (double reward : rewards) out.mean += reward;
  out.mean /= count;
  double square = 0;
  for (double reward : rewards) square += (reward - out.mean) * (reward - out.mean);
  out.scale = estimator == Estimator::kGroup
                  ? 1.0 / (std::sqrt(square / (count - 1)) + kGroupEpsilon)
                  : 1.0;
  return out;
}

std::vector<double> ProcessAdvantages(const RewardScale& scale, std::span<const StepReward> steps,
                                      double outcome, std::span<const std::uint8_t> in_loss) {
  std::vector<double> out(in_loss.size(), 0.0);
  double sum = (outcome - scale.mean) * scale.scale;
  for (std::size_t row = in_loss.size(); row-- > 0;) {
    for (; !steps.empty() && steps.back().row == row; steps = steps.first(steps.size() - 1)) {
      sum += (steps.back().value - scale.mean) * scale.scale;
    }
    if (in_loss[row] != 0) out[row] = sum;
  }
  return out;
}

}  // namespace thresher::learner
