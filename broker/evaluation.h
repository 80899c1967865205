#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/config/plan.h"

namespace thresher::broker {

// An estimate with its 95 % interval.
struct Estimate {
  double value = 0;
  double low = 0;
  double high = 0;
  friend bool operator==(const Estimate&, const Estimate&) = default;
};

// A finished evaluation round: how many of its samples solved each item.
struct EvalResult {
  EvalRound round;
  std::vector<std::uint32_t> solved;  // per item, of round.samples
  double mean_reward = 0;             // over the samples that arrived
  std::uint64_t arrived = 0;          // others were dropped and count as not solved
  Hash128 digest;
};

// Probability that at least one of k samples drawn without replacement from n, c of them right, is
// right: 1 - C(n - c, k) / C(n, k). Unbiased for pass@k. k <= n (checked).
// Source: Chen et al. 2021, arXiv:2107.03374.
double PassAtKOfItem(std::uint32_t n, std::uint32_t c, std::uint32_t k);

// pass@k over items: the mean over items; its interval is normal over items (items are the
// independent units, samples of one item are not). Where every item agrees (no spread to estimate)
// it is the Wilson score interval over items. Values lie in [0, 1].
Estimate PassAtK(const EvalResult& result, std::uint32_t k);

// 1, 2, 4, ... below `samples`, and `samples` itself.
std::vector<std::uint32_t> ReportedKs(std::uint32_t samples);

// What is kept of a finished round for the rest of the run: no number an item.
struct EvalSummary {
  EvalRound round;
  std::vector<Estimate> pass_at;  // of each ReportedKs(round.samples)
  double mean_reward = 0;
  std::uint64_t arrived = 0;
  Hash128 digest;

  Estimate pass_at_1() const { return pass_at.front(); }
  friend bool operator==(const EvalSummary& a, const EvalSummary& b) {
    return a.round.round == b.round.round && a.pass_at == b.pass_at && a.digest == b.digest &&
           a.mean_reward == b.mean_reward && a.arrived == b.arrived;
  }
};
EvalSummary Summarise(const EvalResult& result);

}  // namespace thresher::broker
