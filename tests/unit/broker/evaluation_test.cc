#include "broker/evaluation.h"

#include <gtest/gtest.h>

#include <cmath>

namespace thresher::broker {
namespace {

double Choose(int n, int k) {
  return std::round(std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)));
}

TEST(PassAtK, EqualsTheBinomialFormula) {
  for (int n = 1; n <= 16; ++n) {
    for (int c = 0; c <= n; ++c) {
      for (int k = 1; k <= n; ++k) {
        double expected = n - c < k ? 1 : 1 - Choose(n - c, k) / Choose(n, k);
        EXPECT_NEAR(PassAtKOfItem(n, c, k), expected, 1e-12) << n << " " << c << " " << k;
      }
    }
  }
}

TEST(PassAtK, IntervalIsNormalOverItems) {
  EvalResult result;
  result.round.samples = 4;
  result.solved = {0, 4, 2, 2};  // shares 0, 1, 0.5, 0.5
  Estimate estimate = PassAtK(result, 1);
  double deviation = std::sqrt((0.25 + 0.25) / 3);
  EXPECT_NEAR(estimate.value, 0.5, 1e-12);
  EXPECT_NEAR(estimate.high - estimate.value, 1.959964 * deviation / 2, 1e-5);
  EXPECT_NEAR(PassAtK(result, 4).value, 0.75, 1e-12);
}

TEST(PassAtK, NoSpreadStillHasAnInterval) {
  EvalResult result;
  result.round.samples = 2;
  result.solved.assign(100, 0);
  Estimate none = PassAtK(result, 1);
  EXPECT_EQ(none.value, 0);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.0370, 1e-3);  // Wilson, 0 of 100
  result.solved.assign(100, 2);
  EXPECT_NEAR(PassAtK(result, 2).low, 0.9630, 1e-3);
}

TEST(PassAtK, ReportsPowersOfTwoAndAll) {
  EXPECT_EQ(ReportedKs(8), (std::vector<std::uint32_t>{1, 2, 4, 8}));
  EXPECT_EQ(ReportedKs(6), (std::vector<std::uint32_t>{1, 2, 4, 6}));
  EXPECT_EQ(ReportedKs(1), (std::vector<std::uint32_t>{1}));
}

}  // namespace
}  // namespace thresher::broker
