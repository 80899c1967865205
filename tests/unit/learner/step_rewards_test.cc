#include "learner/step_rewards.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <thread>

#include "common/wire/records.h"
#include "learner/batch.h"
#include "tests/unit/learner/leaf_support.h"

namespace thresher::learner {
namespace {

using namespace std::chrono_literals;

Trajectory WithRewards(std::vector<PositionReward> rewards) {
  Trajectory t;
  t.tokens.assign(10, 1);
  t.outcome.position_rewards = std::move(rewards);
  return t;
}

TEST(StepRewardsOf, EachComesWithTheLastLossTokenAtOrBeforeIt) {
  // Tokens 3, 4 and 7 are in the loss.
  const std::vector<std::uint8_t> in_loss = {0, 0, 1, 1, 0, 0, 1, 0, 0};
  const auto steps = StepRewardsOf(WithRewards({{7, "exact", 1},
                                                {9, "after the last", 2},
                                                {6, "on a word of the environment", 3},
                                                {4, "exact", 4},
                                                {2, "before the first", 5},
                                                {0, "the first token", 6}}),
                                   in_loss);
  std::vector<std::pair<std::uint32_t, double>> got;
  for (const StepReward& step : steps) got.emplace_back(step.row, step.value);
  EXPECT_EQ(got, (std::vector<std::pair<std::uint32_t, double>>{{3, 3}, {3, 4}, {6, 1}, {6, 2}}));
  EXPECT_TRUE(StepRewardsOf(WithRewards({{5, "", 1}}), std::vector<std::uint8_t>(9, 0)).empty());
}

TEST(RewardScaleOf, IsOfAllRewardsOfTheGroup) {
  const std::vector<double> rewards = {1, 0, 0, 3};
  const RewardScale group = RewardScaleOf(Estimator::kGroup, rewards);
  EXPECT_DOUBLE_EQ(group.mean, 1);
  EXPECT_DOUBLE_EQ(group.scale, 1 / (std::sqrt(2.0) + 1e-6));
  EXPECT_DOUBLE_EQ(RewardScaleOf(Estimator::kGroupMean, rewards).scale, 1);
  EXPECT_EQ(RewardScaleOf(Estimator::kGroup, std::vector<double>(3, 0.1)).scale, 0);
  EXPECT_EQ(RewardScaleOf(Estimator::kGroup, {}).scale, 0);
  EXPECT_DEATH(RewardScaleOf(Estimator::kBatch, rewards), "does not know steps");
}

TEST(ProcessAdvantages, AreTheSumsOfWhatComesWithATokenOrAfterIt) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const std::size_t rows = 1 + random() % 12;
    std::vector<std::uint8_t> in_loss(rows);
    for (auto& flag : in_loss) flag = random() % 2;
    Trajectory t = WithRewards({});
    t.tokens.assign(rows + 1, 1);
    for (std::size_t i = random() % 5; i > 0; --i) {
      t.outcome.position_rewards.push_back(
          {static_cast<std::uint32_t>(random() % (rows + 1)), "", double(random() % 8)});
    }
    const RewardScale scale{0.5, 0.25};  // sums of these are exact
    const auto steps = StepRewardsOf(t, in_loss);
    const auto got = ProcessAdvantages(scale, steps, 2.0, in_loss);
    ASSERT_EQ(got.size(), rows);
    for (std::size_t row = 0; row < rows; ++row) {
      double expected = (2.0 - 0.5) * 0.25;
      for (const StepReward& step : steps) {
        if (step.row >= row) expected += (step.value - 0.5) * 0.25;
      }
      EXPECT_EQ(got[row], in_loss[row] ? expected : 0.0) << round << " row " << row;
    }
  }
}

// A batch of real records over ranks.
class StepBatchTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kLeaves = 4, kGroup = 4;

  StepBatchTest() {
    const auto shape = model::SmallConfig("qwen2", true);
    const auto policy =
        model::PackedModel::Make(shape, model::LivelyWeights(shape, 3), shape.vocab, false);
    config_ = ParseConfig("", "test", {});
    config_.learner.grad_leaves = kLeaves;
    config_.objective.step_rewards = "process";
    plan_.phase = Phase::kRl;
    leaves_.resize(kLeaves);
    for (std::uint32_t item = 0; item < kLeaves; ++item) {
      for (std::uint32_t sample = 0; sample < kGroup; ++sample) {
        Trajectory t = SampleTrajectory(*policy, item, 3, 5, 1.0f, 0);
        t.id.sample = sample;
        t.outcome.reward = sample % 2;
        for (std::uint32_t step = 0; step < sample + item; ++step) {
          t.outcome.position_rewards.push_back({3 + step % 5, "step", 0.25 * step});
        }
        leaves_[item].push_back(std::move(t));
      }
    }
  }

  std::vector<StepBatch> Make(std::uint32_t ranks) const {
    std::vector<wire::BatchEntry> entries;
    for (const auto& leaf : leaves_) {
      for (const Trajectory& t : leaf) entries.push_back({t.id, t.ContentHash()});
    }
    auto group = comm::MakeLocalGroup(ranks, 60s);
    std::vector<StepBatch> got(ranks);
    std::vector<std::jthread> threads;
    for (std::uint32_t r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        FetchedPart part;
        const std::size_t each = kLeaves / ranks;
        part.leaves.assign(leaves_.begin() + static_cast<std::ptrdiff_t>(r * each),
                           leaves_.begin() + static_cast<std::ptrdiff_t>((r + 1) * each));
        part.broker_digest = wire::HashBatch(entries);
        auto batch = MakeBatch(*group[r], config_, plan_, part);
        ASSERT_TRUE(batch.ok()) << batch.status().ToString();
        got[r] = std::move(batch).value();
      });
    }
    threads.clear();
    return got;
  }

  // Of all ranks' sequences, in canonical order.
  std::vector<TrainSequence> Sequences(std::uint32_t ranks) const {
    std::vector<TrainSequence> all;
    for (StepBatch& batch : Make(ranks)) {
      for (LeafWork* leaf : OwnLeaves(batch)) {
        all.insert(all.end(), leaf->sequences.begin(), leaf->sequences.end());
      }
    }
    return all;
  }

  Config config_;
  StepPlan plan_;
  std::vector<std::vector<Trajectory>> leaves_;
};

TEST_F(StepBatchTest, GroupsAreComparedByTheRewardsOfAllTheirSteps) {
  const auto sequences = Sequences(1);
  ASSERT_EQ(sequences.size(), kLeaves * kGroup);
  for (std::size_t item = 0; item < kLeaves; ++item) {
    std::vector<double> all;
    for (const Trajectory& t : leaves_[item]) {
      all.push_back(t.outcome.reward);
      for (const auto& reward : t.outcome.position_rewards) all.push_back(reward.value);
    }
    double mean = 0, square = 0;
    for (double r : all) mean += r / static_cast<double>(all.size());
    for (double r : all) square += (r - mean) * (r - mean);
    const double std = std::sqrt(square / static_cast<double>(all.size() - 1));
    for (std::size_t sample = 0; sample < kGroup; ++sample) {
      const Trajectory& t = leaves_[item][sample];
      const TrainSequence& sequence = sequences[item * kGroup + sample];
      ASSERT_EQ(sequence.values.advantage.size(), sequence.in_loss.size());
      for (std::size_t row = 0; row < sequence.in_loss.size(); ++row) {
        double expected = (t.outcome.reward - mean) / (std + 1e-6);
        for (const auto& reward : t.outcome.position_rewards) {
          if (reward.position >= row + 1) expected += (reward.value - mean) / (std + 1e-6);
        }
        EXPECT_NEAR(sequence.values.advantage[row], sequence.in_loss[row] ? expected : 0, 1e-12);
      }
      EXPECT_TRUE(sequence.step_rewards.empty());
    }
  }
}

TEST_F(StepBatchTest, AnyNumberOfRanksMakesTheSameAdvantages) {
  const auto one = Sequences(1);
  for (std::uint32_t ranks : {2u, 4u}) {
    const auto several = Sequences(ranks);
    ASSERT_EQ(several.size(), one.size());
    for (std::size_t i = 0; i < one.size(); ++i) {
      EXPECT_EQ(several[i].id, one[i].id);
      EXPECT_EQ(several[i].values.advantage, one[i].values.advantage);
    }
  }
}

TEST_F(StepBatchTest, WithoutStepsEveryTokenHasTheAdvantageOfItsSample) {
  for (auto& leaf : leaves_) {
    for (Trajectory& t : leaf) t.outcome.position_rewards.clear();
  }
  const auto process = Sequences(2);
  config_.objective.step_rewards = "none";
  const auto none = Sequences(2);
  for (std::size_t i = 0; i < none.size(); ++i) {
    EXPECT_TRUE(none[i].values.advantage.empty());
    for (std::size_t row = 0; row < none[i].in_loss.size(); ++row) {
      EXPECT_EQ(process[i].values.advantage[row], none[i].in_loss[row] ? none[i].advantage : 0);
    }
  }
}

TEST_F(StepBatchTest, ACriticIsGivenTheStepsAndComparesNothing) {
  config_.objective.critic = "own";
  config_.objective.advantage = "gae";
  const auto sequences = Sequences(2);
  for (std::size_t item = 0; item < kLeaves; ++item) {
    for (std::size_t sample = 0; sample < kGroup; ++sample) {
      const TrainSequence& sequence = sequences[item * kGroup + sample];
      EXPECT_TRUE(sequence.values.advantage.empty());
      EXPECT_EQ(sequence.reward, leaves_[item][sample].outcome.reward);
      EXPECT_EQ(sequence.step_rewards.size(), item + sample);
    }
  }
}

TEST_F(StepBatchTest, WhatTheBrokerDidNotComposeIsRefused) {
  leaves_[0][0].outcome.reward = 7;
  FetchedPart part;
  part.leaves = leaves_;
  auto alone = comm::MakeLocalGroup(1, 60s);
  EXPECT_EQ(MakeBatch(*alone[0], config_, plan_, part).status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace thresher::learner
