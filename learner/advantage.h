#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thresher::learner {

// How much better a sample was than was to be expected, from rewards alone. r: its reward; mean and
// std: of its group (std with n - 1, as the published implementations have it); n: samples of it.
enum class Estimator : std::uint8_t {
  kGroup,          // (r - mean) / (std + 1e-6)     GRPO, Shao et al. 2024, arXiv:2402.03300
  kGroupMean,      // r - mean                      Dr. GRPO, Liu et al. 2025, arXiv:2503.20783
  kLeaveOneOut,    // r - mean of the others        RLOO, Ahmadian et al. 2024, arXiv:2402.14740
  kBatch,          // r, then normalised            REINFORCE++, Hu et al. 2025, arXiv:2501.03262
  kBatchBaseline,  // r - mean, then normalised     REINFORCE++ with a baseline (the same)
  kAccepted,       // 1 where r >= accept, else 0   RAFT, Dong et al. 2023, arXiv:2304.06767, as in
                   //                               Xiong et al. 2025, arXiv:2504.11343
  kGae,            // r, of which a critic makes advantages of tokens (learner/value.h): by
  kVTrace,         // generalised estimates, or by V-trace
};
inline constexpr double kGroupEpsilon = 1e-6;
// "normalised": over the batch, every sample counting as often as it has loss tokens: less the
// mean, over sqrt(variance with N - 1 + 1e-8), as if every token were whitened.

// A sample as an estimator sees it.
struct Scored {
  double reward = 0;
  std::uint64_t loss_tokens = 0;
};

// One advantage each, computed in double in index order. A group of one, or of equal rewards, gives
// exact zeros with the estimators that compare within it; so does a batch of equal values where it
// is normalised. samples: of a whole batch, grouped one after another, `group_sizes` long each.
std::vector<double> Advantages(Estimator estimator, std::span<const Scored> samples,
                               std::span<const std::size_t> group_sizes, double accept = 1.0);

// What is taken off the reward of an answer of `length` tokens when `longest` are allowed: nothing
// up to longest - buffer, 1 at `longest`, linear between (DAPO, Yu et al. 2025, arXiv:2503.14476,
// eq. 13, with its sign turned). buffer 0: nothing ever.
double OverlongPenalty(std::uint64_t length, std::uint64_t longest, std::uint64_t buffer);

// What is added to the reward of each answer of a group for its length among theirs: from 1/2 for
// the shortest to -1/2 for the longest, linear between; an answer that is not correct gains nothing
// by being short. Lengths that are all equal: 0. (Kimi team 2025, arXiv:2501.12599, section 2.3.3.)
struct AnswerLength {
  std::uint64_t tokens = 0;
  bool correct = false;
};
std::vector<double> LengthRewards(std::span<const AnswerLength> group);

}  // namespace thresher::learner
