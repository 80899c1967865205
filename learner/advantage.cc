#include "learner/advantage.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/base/check.h"

namespace thresher::learner {
namespace {

constexpr double kStdEpsilon = 1e-6;  // as in the published implementations of GRPO

void OneGroup(std::span<const double> rewards, bool normalise_std, std::vector<float>& out) {
  bool equal = std::all_of(rewards.begin(), rewards.end(),
                           [&](double r) { return r == rewards.front(); });
  if (equal) {
    out.insert(out.end(), rewards.size(), 0.0f);
    return;
  }
  double count = static_cast<double>(rewards.size());
  double mean = 0;
  for (double r : rewards) mean += r;
  mean /= count;
  double variance = 0;
  for (double r : rewards) variance += (r - mean) * (r - mean);
  double scale = normalise_std ? 1.0 / (std::sqrt(variance / count) + kStdEpsilon) : 1.0;
  for (double r : rewards) out.push_back(static_cast<float>((r - mean) * scale));
}

}  // namespace

std::vector<float> GroupAdvantages(std::span<const double> rewards,
                                   std::span<const std::size_t> group_sizes, bool normalise_std) {
  std::vector<float> out;
  out.reserve(rewards.size());
  std::size_t begin = 0;
  for (std::size_t size : group_sizes) {
    THRESHER_CHECK(size > 0 && begin + size <= rewards.size(), "group sizes exceed the rewards");
    OneGroup(rewards.subspan(begin, size), normalise_std, out);
    begin += size;
  }
  THRESHER_CHECK(begin == rewards.size(), "group sizes do not cover the rewards");
  return out;
}

}  // namespace thresher::learner
