#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace thresher::learner {

// Group-relative advantages: for each group of rewards r, (r - mean(r)) / (std(r) + 1e-6) when
// `normalise_std`, else r - mean(r) (Dr. GRPO). std is the population's. A group of one, or one whose
// rewards are all equal, gives exact zeros. Computed in double, in index order.
// rewards: grouped one after another, `group_sizes` long each. Returns one float per reward.
// Sources: GRPO, Shao et al. 2024, arXiv:2402.03300; Dr. GRPO, Liu et al. 2025, arXiv:2503.20783.
std::vector<float> GroupAdvantages(std::span<const double> rewards,
                                   std::span<const std::size_t> group_sizes, bool normalise_std);

}  // namespace thresher::learner
