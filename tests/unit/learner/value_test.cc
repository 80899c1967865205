#include "learner/value.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "common/base/random.h"

namespace thresher::learner {
namespace {

using Values = std::vector<double>;

Values RandomValues(RandomSequence& random, std::size_t count, double size) {
  Values out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(size * (2 * random.NextUniform() - 1));
  return out;
}

double After(const Values& v, std::size_t t) { return t + 1 < v.size() ? v[t + 1] : 0.0; }

void ExpectNear(const Values& got, const Values& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12) << i;
}

// Eq. 16 as it stands: a sum of discounted residuals for each token.
Values NaiveAdvantages(const Values& r, const Values& v, double gamma, double lambda) {
  Values out;
  for (std::size_t t = 0; t < r.size(); ++t) {
    double sum = 0;
    for (std::size_t k = t; k < r.size(); ++k) {
      const double delta = r[k] + gamma * After(v, k) - v[k];
      sum += std::pow(gamma * lambda, static_cast<double>(k - t)) * delta;
    }
    out.push_back(sum);
  }
  return out;
}

// Eq. 1 as it stands: v[s] + sum over t of gamma^(t-s) c[s] .. c[t-1] rho[t] delta[t].
Values NaiveTargets(const Values& r, const Values& v, const Values& log_ratio,
                    const VTraceOptions& o) {
  Values out;
  for (std::size_t s = 0; s < r.size(); ++s) {
    double target = v[s];
    for (std::size_t t = s; t < r.size(); ++t) {
      double weight = std::pow(o.gamma, static_cast<double>(t - s));
      for (std::size_t i = s; i < t; ++i) weight *= std::min(o.c_bar, std::exp(log_ratio[i]));
      weight *= std::min(o.rho_bar, std::exp(log_ratio[t]));
      target += weight * (r[t] + o.gamma * After(v, t) - v[t]);
    }
    out.push_back(target);
  }
  return out;
}

TEST(Value, AdvantagesAreTheSumOfDiscountedResiduals) {
  RandomSequence random(11, {}, RandomPurpose::kBootstrap);
  for (std::size_t n : {0u, 1u, 2u, 7u, 40u}) {
    for (auto [gamma, lambda] : {std::pair{1.0, 0.95}, {0.9, 0.5}, {1.0, 1.0}, {0.7, 0.0}}) {
      const Values r = RandomValues(random, n, 2), v = RandomValues(random, n, 3);
      const TokenGains got = GeneralisedAdvantages(r, v, gamma, lambda);
      Values want = NaiveAdvantages(r, v, gamma, lambda);
      ExpectNear(got.advantage, want);
      for (std::size_t t = 0; t < n; ++t) want[t] += v[t];
      ExpectNear(got.target, want);
    }
  }
}

TEST(Value, AdvantagesWorkedOutByHand) {
  // delta = (0 + 0.5 * 2 - 1, 0 + 0.5 * 4 - 2, 8 - 4) = (0, 0, 4); gamma lambda = 0.25.
  const TokenGains got = GeneralisedAdvantages(Values{0, 0, 8}, Values{1, 2, 4}, 0.5, 0.5);
  EXPECT_EQ(got.advantage, (Values{0.25, 1, 4}));
  EXPECT_EQ(got.target, (Values{1.25, 3, 8}));
}

TEST(Value, WithLambdaOneTheTargetIsTheDiscountedReturn) {
  RandomSequence random(12, {}, RandomPurpose::kBootstrap);
  const Values r = RandomValues(random, 9, 1), v = RandomValues(random, 9, 5);
  const TokenGains got = GeneralisedAdvantages(r, v, 0.8, 1);
  double expected = 0;
  for (std::size_t t = r.size(); t-- > 0;) {
    expected = r[t] + 0.8 * expected;
    EXPECT_NEAR(got.target[t], expected, 1e-12);
  }
}

TEST(Value, VTraceIsTheSumOfWeightedResiduals) {
  RandomSequence random(13, {}, RandomPurpose::kBootstrap);
  for (std::size_t n : {0u, 1u, 2u, 7u, 30u}) {
    for (const VTraceOptions o :
         {VTraceOptions{1, 1, 1}, {0.9, 1.2, 0.8}, {0.95, 100, 1}, {1, 100, 100}}) {
      const Values r = RandomValues(random, n, 2), v = RandomValues(random, n, 3);
      const Values q = RandomValues(random, n, 0.7);
      const TokenGains got = VTrace(r, v, q, o);
      const Values want = NaiveTargets(r, v, q, o);
      ExpectNear(got.target, want);
      Values gain;
      for (std::size_t t = 0; t < n; ++t) {
        const double rho = std::min(o.rho_bar, std::exp(q[t]));
        gain.push_back(rho * (r[t] + o.gamma * After(want, t) - v[t]));
      }
      ExpectNear(got.advantage, gain);
    }
  }
}

TEST(Value, OnPolicyVTraceIsTheReturnAndItsAdvantageThatOfLambdaOne) {
  RandomSequence random(14, {}, RandomPurpose::kBootstrap);
  const Values r = RandomValues(random, 8, 1), v = RandomValues(random, 8, 2);
  const TokenGains trace = VTrace(r, v, Values(8, 0.0), {0.9, 1, 1});
  const TokenGains gae = GeneralisedAdvantages(r, v, 0.9, 1);
  ExpectNear(trace.target, gae.target);
  ExpectNear(trace.advantage, gae.advantage);
}

// A chain of kSteps choices between two actions; the state is the step and how often action 1 was
// chosen. Values by enumeration of all that can happen.
class Chain {
 public:
  static constexpr std::size_t kSteps = 4;
  static constexpr double kGamma = 0.9;
  using Table = std::array<std::array<double, kSteps + 1>, kSteps>;  // [step][ones]

  static double Reward(std::size_t step, std::size_t ones, int action) {
    return action == 1 ? 0.5 + 0.3 * static_cast<double>(step) : 0.4 * static_cast<double>(ones);
  }

  // The value of every state under a policy: `one`, the probability of action 1.
  static Table ValueOf(const Table& one) {
    Table v{};
    for (std::size_t step = kSteps; step-- > 0;) {
      for (std::size_t ones = 0; ones <= step; ++ones) {
        for (int action : {0, 1}) {
          const std::size_t then = ones + static_cast<std::size_t>(action);
          const double next = step + 1 < kSteps ? v[step + 1][then] : 0;
          const double p = action == 1 ? one[step][ones] : 1 - one[step][ones];
          v[step][ones] += p * (Reward(step, ones, action) + kGamma * next);
        }
      }
    }
    return v;
  }

  // What the targets are on average over what `drew` draws, state by state: v is a fixed point when
  // it is v itself.
  static Table MeanTargets(const Table& drew, const Table& now, const Table& v,
                           const VTraceOptions& options, bool corrected) {
    Table sum{}, mass{};
    for (unsigned bits = 0; bits < (1u << kSteps); ++bits) {
      Values r, value, q;
      std::vector<std::size_t> at;
      double p = 1;
      std::size_t ones = 0;
      for (std::size_t step = 0; step < kSteps; ++step) {
        const int action = static_cast<int>(bits >> step & 1);
        const auto of = [&](const Table& t) {
          return action == 1 ? t[step][ones] : 1 - t[step][ones];
        };
        at.push_back(ones);
        r.push_back(Reward(step, ones, action));
        value.push_back(v[step][ones]);
        q.push_back(corrected ? std::log(of(now) / of(drew)) : 0.0);
        p *= of(drew);
        ones += static_cast<std::size_t>(action);
      }
      const TokenGains gains = VTrace(r, value, q, options);
      for (std::size_t step = 0; step < kSteps; ++step) {
        sum[step][at[step]] += p * gains.target[step];
        mass[step][at[step]] += p;
      }
    }
    for (std::size_t step = 0; step < kSteps; ++step) {
      for (std::size_t ones = 0; ones <= step; ++ones) sum[step][ones] /= mass[step][ones];
    }
    return sum;
  }

  static Table FixedPoint(const Table& drew, const Table& now, const VTraceOptions& options,
                          bool corrected = true) {
    Table v{};
    for (int i = 0; i < 200; ++i) v = MeanTargets(drew, now, v, options, corrected);
    return v;
  }

  static Table Policy(double first, double slope) {
    Table one{};
    for (std::size_t step = 0; step < kSteps; ++step) {
      for (std::size_t ones = 0; ones <= step; ++ones) {
        one[step][ones] = first + slope * static_cast<double>(step + ones);
      }
    }
    return one;
  }

  static double Distance(const Table& a, const Table& b) {
    double most = 0;
    for (std::size_t step = 0; step < kSteps; ++step) {
      for (std::size_t ones = 0; ones <= step; ++ones) {
        most = std::max(most, std::abs(a[step][ones] - b[step][ones]));
      }
    }
    return most;
  }
};

TEST(Value, VTraceUnderAStalePolicyHasTheValueOfThePolicyThatIsTrained) {
  const auto drew = Chain::Policy(0.3, 0.02), now = Chain::Policy(0.7, -0.05);
  const auto expected = Chain::ValueOf(now);
  ASSERT_GT(Chain::Distance(expected, Chain::ValueOf(drew)), 0.2);
  for (double c_bar : {0.5, 1.0, 100.0}) {  // it is rho_bar alone that moves the fixed point
    const auto got = Chain::FixedPoint(drew, now, {Chain::kGamma, 100, c_bar});
    EXPECT_LT(Chain::Distance(got, expected), 1e-10) << c_bar;
  }
  // The control: without weights it is the value of the policy that drew.
  const auto control = Chain::FixedPoint(drew, now, {Chain::kGamma, 100, 100}, false);
  EXPECT_LT(Chain::Distance(control, Chain::ValueOf(drew)), 1e-10);
  EXPECT_GT(Chain::Distance(control, expected), 0.2);
}

TEST(Value, ABoundOnTheWeightMovesVTraceToAPolicyBetween) {
  // pi_rho(a) ~ min(rho_bar mu(a), pi(a)): section 4.1 of the paper.
  const auto drew = Chain::Policy(0.3, 0.02), now = Chain::Policy(0.7, -0.05);
  for (double rho_bar : {0.8, 1.0, 1.5}) {
    Chain::Table between{};
    for (std::size_t step = 0; step < Chain::kSteps; ++step) {
      for (std::size_t ones = 0; ones <= step; ++ones) {
        const double one = std::min(rho_bar * drew[step][ones], now[step][ones]);
        const double zero = std::min(rho_bar * (1 - drew[step][ones]), 1 - now[step][ones]);
        between[step][ones] = one / (one + zero);
      }
    }
    const auto got = Chain::FixedPoint(drew, now, {Chain::kGamma, rho_bar, rho_bar});
    EXPECT_LT(Chain::Distance(got, Chain::ValueOf(between)), 1e-10) << rho_bar;
  }
}

TEST(Value, TheLossIsHalfTheSquareAndNeverLessForItsBound) {
  RandomSequence random(15, {}, RandomPurpose::kBootstrap);
  int clipped = 0;
  for (int i = 0; i < 2000; ++i) {
    const Values x = RandomValues(random, 3, 1);
    const double v = x[0], first = x[1], target = x[2];
    for (double clip : {0.0, 0.2, 0.7}) {
      const double held = std::max(first - clip, std::min(first + clip, v));
      const double plain = 0.5 * (v - target) * (v - target);
      const double bounded = 0.5 * (held - target) * (held - target);
      const ValueLoss got = ValueLossOf(v, first, target, clip);
      EXPECT_DOUBLE_EQ(got.loss, clip > 0 ? std::max(plain, bounded) : plain);
      clipped += got.clipped;
      constexpr double kStep = 1e-6;  // a quadratic: the difference is exact but for rounding
      const double above = ValueLossOf(v + kStep, first, target, clip).loss;
      const double below = ValueLossOf(v - kStep, first, target, clip).loss;
      EXPECT_NEAR(got.slope, (above - below) / (2 * kStep), 1e-5);
    }
  }
  EXPECT_GT(clipped, 300);
}

TEST(Value, LossesWorkedOutByHand) {
  // v has gone from 0 to 1, beyond 0.5, towards the target 2: what is held back counts more.
  EXPECT_EQ(ValueLossOf(1, 0, 2, 0).loss, 0.5);
  EXPECT_EQ(ValueLossOf(1, 0, 2, 0.5).loss, 1.125);
  EXPECT_EQ(ValueLossOf(1, 0, 2, 0.5).slope, 0);
  EXPECT_TRUE(ValueLossOf(1, 0, 2, 0.5).clipped);
  // It has gone away from the target -1: the gradient that brings it back stays.
  EXPECT_EQ(ValueLossOf(1, 0, -1, 0.5).loss, 2);
  EXPECT_EQ(ValueLossOf(1, 0, -1, 0.5).slope, 2);
}

struct Totals {
  GainSums sums;
  GainSquares squares;
};

Totals Of(const std::vector<TokenGains>& gains, const std::vector<Values>& values) {
  Totals out;
  for (std::size_t i = 0; i < gains.size(); ++i) out.sums.Add(SumsOf(gains[i], values[i]));
  for (std::size_t i = 0; i < gains.size(); ++i) {
    out.squares.Add(SquaresOf(gains[i], values[i], out.sums));
  }
  return out;
}

TEST(Value, AdvantagesAreWhitenedOverTheTokensOfTheBatch) {
  RandomSequence random(16, {}, RandomPurpose::kBootstrap);
  std::vector<TokenGains> gains;
  std::vector<Values> values;
  Values all;
  for (std::size_t n : {3u, 1u, 0u, 12u}) {
    values.push_back(RandomValues(random, n, 2));
    gains.push_back({RandomValues(random, n, 3), RandomValues(random, n, 3)});
    all.insert(all.end(), gains.back().advantage.begin(), gains.back().advantage.end());
  }
  const Totals totals = Of(gains, values);
  double mean = 0, square = 0;
  for (double a : all) mean += a / 16;
  for (double a : all) square += (a - mean) * (a - mean);
  ASSERT_EQ(totals.sums.tokens, 16u);
  for (double a : all) {
    EXPECT_NEAR(Whitened(a, totals.sums, totals.squares),
                (a - mean) / std::sqrt(square / 15 + 1e-8), 1e-12);
  }
}

TEST(Value, EqualAdvantagesAreWhitenedToExactZeros) {
  const std::vector<TokenGains> gains = {{Values(7, 0.1), Values(7, 1.0)}};
  const Totals totals = Of(gains, {Values(7, 0.3)});
  EXPECT_EQ(Whitened(0.1, totals.sums, totals.squares), 0.0);
  const Totals one = Of({{{0.4}, {1.0}}}, {{0.3}});
  EXPECT_EQ(Whitened(0.4, one.sums, one.squares), 0.0);
}

TEST(Value, ExplainedVarianceIsOneForTheTruthAndZeroForAConstant) {
  const Values truth = {1, 2, 4, 8};
  const auto explained = [&](const Values& v) {
    return ExplainedVariance(Of({{Values(4, 0.0), truth}}, {v}).squares);
  };
  EXPECT_EQ(explained(truth), 1.0);
  EXPECT_EQ(explained({3, 3, 3, 3}), 0.0);
  EXPECT_EQ(explained({2, 3, 5, 9}), 1.0);  // of the variance: a shift is none
  // error = (0, 0, 0, 8): variance 16 / 4 * 3; targets: mean 3.75, squares 28.75.
  EXPECT_DOUBLE_EQ(explained({1, 2, 4, 0}), 1 - 48 / 28.75);
  EXPECT_TRUE(std::isnan(ExplainedVariance(Of({{Values(2, 0.0), {5, 5}}}, {{1, 2}}).squares)));
}

}  // namespace
}  // namespace thresher::learner
