#include "learner/advantage.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "common/base/random.h"

namespace thresher::learner {
namespace {

using Sizes = std::vector<std::size_t>;
using Values = std::vector<double>;

std::vector<Scored> Samples(const Values& rewards) {
  std::vector<Scored> out;
  for (double r : rewards) out.push_back({r, 1});
  return out;
}

struct Batch {
  std::vector<Scored> samples;
  Sizes sizes = {2, 8, 3, 64, 5};
};

Batch RandomBatch() {
  RandomSequence random(3, {}, RandomPurpose::kBootstrap);
  Batch batch;
  for (std::size_t n : batch.sizes) {
    for (std::size_t i = 0; i < n; ++i) {
      const double reward = i % 3 == 0 ? 1.0 : 4 * random.NextUniform() - 2;
      batch.samples.push_back({reward, 1 + static_cast<std::uint64_t>(40 * random.NextUniform())});
    }
  }
  return batch;
}

// The papers' formulas for one sample of a group.
double InGroup(Estimator estimator, const Values& group, std::size_t i) {
  const double n = static_cast<double>(group.size());
  double sum = 0, square = 0;
  for (double r : group) sum += r;
  for (double r : group) square += (r - sum / n) * (r - sum / n);
  if (estimator == Estimator::kLeaveOneOut) return group[i] - (sum - group[i]) / (n - 1);
  const double centred = group[i] - sum / n;
  return estimator == Estimator::kGroup ? centred / (std::sqrt(square / (n - 1)) + 1e-6) : centred;
}

TEST(Advantages, WithinGroupsEqualTheFormulas) {
  const Batch batch = RandomBatch();
  for (Estimator estimator : {Estimator::kGroup, Estimator::kGroupMean, Estimator::kLeaveOneOut}) {
    const Values got = Advantages(estimator, batch.samples, batch.sizes);
    ASSERT_EQ(got.size(), batch.samples.size());
    std::size_t begin = 0;
    for (std::size_t n : batch.sizes) {
      Values group;
      for (std::size_t i = 0; i < n; ++i) group.push_back(batch.samples[begin + i].reward);
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_NEAR(got[begin + i], InGroup(estimator, group, i), 1e-12);
      }
      begin += n;
    }
  }
}

// Every token written out, as the formulas over tokens have it.
Values Whitened(const Values& values, const std::vector<Scored>& samples) {
  Values tokens;
  for (std::size_t i = 0; i < values.size(); ++i) {
    tokens.insert(tokens.end(), samples[i].loss_tokens, values[i]);
  }
  double mean = 0, square = 0;
  for (double v : tokens) mean += v / static_cast<double>(tokens.size());
  for (double v : tokens) square += (v - mean) * (v - mean);
  const double scale = 1 / std::sqrt(square / static_cast<double>(tokens.size() - 1) + 1e-8);
  Values out;
  for (double v : values) out.push_back((v - mean) * scale);
  return out;
}

TEST(Advantages, OverTheBatchAreWhitenedTokenByToken) {
  const Batch batch = RandomBatch();
  Values rewards;
  for (const Scored& s : batch.samples) rewards.push_back(s.reward);
  const Values plain = Advantages(Estimator::kBatch, batch.samples, batch.sizes);
  const Values expected = Whitened(rewards, batch.samples);
  const Values centred = Advantages(Estimator::kGroupMean, batch.samples, batch.sizes);
  const Values with_baseline = Advantages(Estimator::kBatchBaseline, batch.samples, batch.sizes);
  const Values expected_with = Whitened(centred, batch.samples);
  for (std::size_t i = 0; i < rewards.size(); ++i) {
    EXPECT_NEAR(plain[i], expected[i], 1e-12);
    EXPECT_NEAR(with_baseline[i], expected_with[i], 1e-12);
  }
}

TEST(Advantages, MaskedSamplesHaveNoSayInWhitening) {
  std::vector<Scored> samples = {{1, 5}, {0, 5}, {100, 0}};
  const Values got = Advantages(Estimator::kBatch, samples, Sizes{3});
  samples.pop_back();
  const Values alone = Advantages(Estimator::kBatch, samples, Sizes{2});
  EXPECT_EQ(got[0], alone[0]);
  EXPECT_EQ(got[1], alone[1]);
}

TEST(Advantages, AcceptedAreThoseOfEnoughReward) {
  EXPECT_EQ(Advantages(Estimator::kAccepted, Samples({1, 0.99, 2, -1, 0.5}), Sizes{2, 3}),
            (Values{1, 0, 1, 0, 0}));
  EXPECT_EQ(Advantages(Estimator::kAccepted, Samples({1, 0.99, 0.5}), Sizes{3}, 0.5),
            (Values{1, 1, 1}));
}

TEST(Advantages, EqualRewardsGiveExactZerosWhateverTheirValue) {
  // 0.1 summed seven times and divided is not 0.1: the zero must not come from a subtraction.
  for (double value : {0.0, 0.1, -0.3, 1e9}) {
    for (std::size_t n : {1u, 2u, 7u, 49u}) {
      for (Estimator estimator : {Estimator::kGroup, Estimator::kGroupMean, Estimator::kLeaveOneOut,
                                  Estimator::kBatch, Estimator::kBatchBaseline}) {
        for (double a : Advantages(estimator, Samples(Values(n, value)), Sizes{n})) {
          EXPECT_EQ(std::bit_cast<std::uint64_t>(a), 0u) << value << " x " << n;
        }
      }
    }
  }
}

TEST(Advantages, AGroupIsNotTouchedByItsNeighbours) {
  const auto all = Advantages(Estimator::kGroup, Samples({1, 0, 0, 1, 5, -5}), Sizes{4, 2});
  const auto alone = Advantages(Estimator::kGroup, Samples({5, -5}), Sizes{2});
  EXPECT_EQ(all[4], alone[0]);
  EXPECT_EQ(all[5], alone[1]);
}

TEST(Advantages, NoGroupsGiveNothing) {
  EXPECT_TRUE(Advantages(Estimator::kGroup, {}, {}).empty());
  EXPECT_TRUE(Advantages(Estimator::kBatch, {}, {}).empty());
}

TEST(AdvantagesDeathTest, SizesThatDoNotCoverTheSamplesAreABug) {
  const auto samples = Samples({1, 2, 3});
  EXPECT_DEATH((void)Advantages(Estimator::kGroup, samples, Sizes{2}), "do not cover");
  EXPECT_DEATH((void)Advantages(Estimator::kGroup, samples, Sizes{2, 2}), "exceed");
}

TEST(OverlongPenalty, RisesOverTheBuffer) {
  EXPECT_EQ(OverlongPenalty(80, 100, 20), 0);
  EXPECT_EQ(OverlongPenalty(85, 100, 20), 0.25);
  EXPECT_EQ(OverlongPenalty(100, 100, 20), 1);
  EXPECT_EQ(OverlongPenalty(130, 100, 20), 1);
  EXPECT_EQ(OverlongPenalty(100, 100, 0), 0);
  EXPECT_EQ(OverlongPenalty(1, 100, 100), 0.01);
}

TEST(LengthRewards, TheShortestGainsHalfAndNobodyForBeingWrongInFewWords) {
  const std::vector<AnswerLength> group = {
      {10, true}, {10, false}, {20, true}, {25, false}, {30, true}};
  EXPECT_EQ(LengthRewards(group), (std::vector<double>{0.5, 0, 0, -0.25, -0.5}));
}

TEST(LengthRewards, EqualLengthsAndNoAnswersGiveNothing) {
  EXPECT_EQ(LengthRewards(std::vector<AnswerLength>{{7, true}, {7, false}}),
            std::vector<double>(2));
  EXPECT_TRUE(LengthRewards({}).empty());
}

}  // namespace
}  // namespace thresher::learner
