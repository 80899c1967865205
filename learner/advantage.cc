#include "learner/advantage.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace thresher::learner {
namespace {

constexpr double kBatchEpsilon = 1e-8;

bool AllEqual(std::span<const Scored> samples) {
  return std::ranges::all_of(samples,
                             [&](const Scored& s) { return s.reward == samples.front().reward; });
}

void AddGroup(Estimator estimator, std::span<const Scored> group, std::vector<double>& out) {
  if (AllEqual(group)) {  // by comparison: a mean of equal numbers need not be that number
    out.insert(out.end(), group.size(), 0.0);
    return;
  }
  const double count = static_cast<double>(group.size());
  double mean = 0;
  for (const Scored& s : group) mean += s.reward;
  mean /= count;
  double square = 0;
  for (const Scored& s : group) square += (s.reward - mean) * (s.reward - mean);
  double scale = 1;
  if (estimator == Estimator::kGroup) {
    scale = 1.0 / (std::sqrt(square / (count - 1)) + kGroupEpsilon);
  }
  if (estimator == Estimator::kLeaveOneOut) scale = count / (count - 1);
  for (const Scored& s : group) out.push_back((s.reward - mean) * scale);
}

// Every sample as often as it has tokens.
void Normalise(std::span<const Scored> samples, std::vector<double>& values) {
  double tokens = 0, mean = 0, square = 0;
  double least = INFINITY, greatest = -INFINITY;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double n = static_cast<double>(samples[i].loss_tokens);
    if (n == 0) continue;
    tokens += n;
    mean += n * values[i];
    least = std::min(least, values[i]);
    greatest = std::max(greatest, values[i]);
  }
  if (!(least < greatest)) {
    std::ranges::fill(values, 0.0);
    return;
  }
  mean /= tokens;
  for (std::size_t i = 0; i < values.size(); ++i) {
    square += static_cast<double>(samples[i].loss_tokens) * (values[i] - mean) * (values[i] - mean);
  }
  const double scale = 1.0 / std::sqrt(square / (tokens - 1) + kBatchEpsilon);
  for (double& value : values) value = (value - mean) * scale;
}

}  // namespace

std::vector<double> Advantages(Estimator estimator, std::span<const Scored> samples,
                               std::span<const std::size_t> group_sizes, double accept) {
  std::vector<double> out;
  out.reserve(samples.size());
  std::size_t begin = 0;
  for (const std::size_t size : group_sizes) {
    THRESHER_CHECK(size > 0 && begin + size <= samples.size(), "group sizes exceed the samples");
    const auto group = samples.subspan(begin, size);
    begin += size;
    if (estimator == Estimator::kAccepted) {
      for (const Scored& s : group) out.push_back(s.reward >= accept ? 1.0 : 0.0);
    } else if (estimator == Estimator::kBatch || estimator == Estimator::kGae ||
               estimator == Estimator::kVTrace) {
      for (const Scored& s : group) out.push_back(s.reward);
    } else {
      AddGroup(estimator, group, out);
    }
  }
  THRESHER_CHECK(begin == samples.size(), "group sizes do not cover the samples");
  if (estimator == Estimator::kBatch || estimator == Estimator::kBatchBaseline) {
    Normalise(samples, out);
  }
  return out;
}

double OverlongPenalty(std::uint64_t length, std::uint64_t longest, std::uint64_t buffer) {
  if (buffer == 0 || length + buffer <= longest) return 0;
  const double over = static_cast<double>(length + buffer - longest);
  return std::min(1.0, over / static_cast<double>(buffer));
}

std::vector<double> LengthRewards(std::span<const AnswerLength> group) {
  std::vector<double> rewards(group.size(), 0.0);
  const auto [least, most] = std::ranges::minmax_element(group, {}, &AnswerLength::tokens);
  if (group.empty() || least->tokens == most->tokens) return rewards;
  const auto range = static_cast<double>(most->tokens - least->tokens);
  for (std::size_t i = 0; i < group.size(); ++i) {
    const double reward = 0.5 - static_cast<double>(group[i].tokens - least->tokens) / range;
    rewards[i] = group[i].correct ? reward : std::min(0.0, reward);
  }
  return rewards;
}

}  // namespace thresher::learner
