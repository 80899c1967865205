#include "learner/value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/check.h"

namespace thresher::learner {
namespace {

constexpr double kEpsilon = 1e-8;

double Square(double x) { return x * x; }

}  // namespace

TokenGains GeneralisedAdvantages(std::span<const double> reward, std::span<const double> value,
                                 double gamma, double lambda) {
  THRESHER_CHECK(reward.size() == value.size(), "a reward and a value for each token");
  TokenGains out{std::vector<double>(value.size()), std::vector<double>(value.size())};
  double next_value = 0, next_advantage = 0;
  for (std::size_t t = value.size(); t-- > 0;) {
    const double delta = reward[t] + gamma * next_value - value[t];
    next_advantage = delta + gamma * lambda * next_advantage;
    next_value = value[t];
    out.advantage[t] = next_advantage;
    out.target[t] = next_advantage + value[t];
  }
  return out;
}

TokenGains VTrace(std::span<const double> reward, std::span<const double> value,
                  std::span<const double> log_ratio, const VTraceOptions& options) {
  THRESHER_CHECK(reward.size() == value.size() && log_ratio.size() == value.size(),
                 "a reward, a value and a ratio for each token");
  TokenGains out{std::vector<double>(value.size()), std::vector<double>(value.size())};
  double next_value = 0, next_target = 0;
  for (std::size_t t = value.size(); t-- > 0;) {
    const double ratio = std::exp(log_ratio[t]);
    const double rho = std::min(options.rho_bar, ratio);
    const double c = std::min(options.c_bar, ratio);
    const double delta = rho * (reward[t] + options.gamma * next_value - value[t]);
    out.advantage[t] = rho * (reward[t] + options.gamma * next_target - value[t]);
    next_target = value[t] + delta + options.gamma * c * (next_target - next_value);
    next_value = value[t];
    out.target[t] = next_target;
  }
  return out;
}

ValueLoss ValueLossOf(double value, double first, double target, double clip) {
  const double error = value - target;
  ValueLoss out{0.5 * Square(error), error, false};
  if (clip <= 0) return out;
  const double bounded = std::clamp(value, first - clip, first + clip);
  const double other = 0.5 * Square(bounded - target);
  if (other > out.loss) out = {other, 0, true};  // only a value beyond the bounds gets here
  return out;
}

void GainSums::Add(const GainSums& other) {
  tokens += other.tokens;
  advantage += other.advantage;
  target += other.target;
  value += other.value;
  least = std::min(least, other.least);
  greatest = std::max(greatest, other.greatest);
}

void GainSquares::Add(const GainSquares& other) {
  advantage += other.advantage;
  target += other.target;
  error += other.error;
}

GainSums SumsOf(const TokenGains& gains, std::span<const double> value) {
  GainSums sums;
  sums.tokens = value.size();
  for (std::size_t t = 0; t < value.size(); ++t) {
    sums.advantage += gains.advantage[t];
    sums.target += gains.target[t];
    sums.value += value[t];
    sums.least = std::min(sums.least, gains.advantage[t]);
    sums.greatest = std::max(sums.greatest, gains.advantage[t]);
  }
  return sums;
}

GainSquares SquaresOf(const TokenGains& gains, std::span<const double> value,
                      const GainSums& batch) {
  const double advantage = batch.Mean(batch.advantage), target = batch.Mean(batch.target);
  const double error = target - batch.Mean(batch.value);
  GainSquares squares;
  for (std::size_t t = 0; t < value.size(); ++t) {
    squares.advantage += Square(gains.advantage[t] - advantage);
    squares.target += Square(gains.target[t] - target);
    squares.error += Square(gains.target[t] - value[t] - error);
  }
  return squares;
}

double Whitened(double advantage, const GainSums& batch, const GainSquares& squares) {
  // By comparison: a mean of equal numbers need not be that number. Not finite: it stays so.
  if (batch.least == batch.greatest) return 0;
  const double variance = squares.advantage / static_cast<double>(batch.tokens - 1);
  return (advantage - batch.Mean(batch.advantage)) / std::sqrt(variance + kEpsilon);
}

double ExplainedVariance(const GainSquares& squares) {
  if (!(squares.target > 0)) return std::numeric_limits<double>::quiet_NaN();
  return 1 - squares.error / squares.target;
}

}  // namespace thresher::learner
