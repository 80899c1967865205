#include "learner/advantage.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "common/base/random.h"

namespace thresher::learner {
namespace {

// The formula as written in the papers, one group, two passes.
std::vector<double> Naive(const std::vector<double>& rewards, bool normalise_std) {
  double mean = 0, variance = 0;
  for (double r : rewards) mean += r / static_cast<double>(rewards.size());
  for (double r : rewards) variance += (r - mean) * (r - mean);
  double deviation = std::sqrt(variance / static_cast<double>(rewards.size()));
  std::vector<double> out;
  for (double r : rewards) out.push_back((r - mean) / (normalise_std ? deviation + 1e-6 : 1.0));
  return out;
}

TEST(GroupAdvantages, EqualTheFormulaGroupByGroup) {
  RandomSequence random(3, {}, RandomPurpose::kBootstrap);
  const std::vector<std::size_t> sizes = {2, 8, 3, 64, 5};
  std::vector<double> rewards;
  for (std::size_t n : sizes) {
    for (std::size_t i = 0; i < n; ++i) {
      rewards.push_back(i % 3 == 0 ? 1.0 : 4 * random.NextUniform() - 2);
    }
  }
  for (bool normalise : {true, false}) {
    const std::vector<float> got = GroupAdvantages(rewards, sizes, normalise);
    ASSERT_EQ(got.size(), rewards.size());
    std::size_t begin = 0;
    for (std::size_t n : sizes) {
      const auto first = rewards.begin() + static_cast<std::ptrdiff_t>(begin);
      const auto expected = Naive({first, first + static_cast<std::ptrdiff_t>(n)}, normalise);
      for (std::size_t i = 0; i < n; ++i) {
        // Half an ulp of a float, and the double's own error on values of at most about 8.
        EXPECT_NEAR(got[begin + i], expected[i], std::abs(expected[i]) * 0x1p-24 + 1e-14);
      }
      begin += n;
    }
  }
}

TEST(GroupAdvantages, EqualRewardsGiveExactZerosWhateverTheirValue) {
  // 0.1 summed seven times and divided is not 0.1: the zero must not come from a subtraction.
  for (double value : {0.0, 0.1, -0.3, 1e9}) {
    for (std::size_t n : {1u, 2u, 7u, 49u}) {
      const std::vector<double> rewards(n, value);
      const std::vector<std::size_t> sizes = {n};
      for (bool normalise : {true, false}) {
        for (float a : GroupAdvantages(rewards, sizes, normalise)) {
          EXPECT_EQ(std::bit_cast<std::uint32_t>(a), 0u) << value << " x " << n;
        }
      }
    }
  }
}

TEST(GroupAdvantages, AGroupIsNotTouchedByItsNeighbours) {
  const std::vector<double> both = {1, 0, 0, 1, 5, -5};
  const std::vector<double> second = {5, -5};
  const std::vector<std::size_t> sizes = {4, 2}, size = {2};
  const auto all = GroupAdvantages(both, sizes, true);
  const auto alone = GroupAdvantages(second, size, true);
  EXPECT_EQ(all[4], alone[0]);
  EXPECT_EQ(all[5], alone[1]);
}

TEST(GroupAdvantages, NoGroupsGiveNothing) { EXPECT_TRUE(GroupAdvantages({}, {}, true).empty()); }

TEST(GroupAdvantagesDeathTest, SizesThatDoNotCoverTheRewardsAreABug) {
  const std::vector<double> rewards = {1, 2, 3};
  const std::vector<std::size_t> few = {2}, many = {2, 2};
  EXPECT_DEATH((void)GroupAdvantages(rewards, few, true), "do not cover");
  EXPECT_DEATH((void)GroupAdvantages(rewards, many, true), "exceed");
}

}  // namespace
}  // namespace thresher::learner
