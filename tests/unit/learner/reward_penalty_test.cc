#include "learner/reward_penalty.h"

#include <gtest/gtest.h>

#include <cmath>

namespace thresher::learner {
namespace {

TrainSequence Drawn() {
  TrainSequence s;
  s.tokens = {1, 2, 3, 4};
  s.in_loss = {0, 1, 1};
  s.behaviour_logprob = {-1.0f, -1.5f, -0.25f};
  s.has_behaviour = {0, 1, 1};
  return s;
}

TEST(RewardPenalty, IsTheEstimateOfTheDivergenceFromTheReferenceInTheLossAlone) {
  ObjectiveConfig objective;
  objective.kl = 2;
  objective.kl_estimator = "k1";
  const std::vector<float> reference = {-9.0f, -1.0f, -0.75f};
  EXPECT_EQ(PenaltyOf(objective, Drawn(), reference), (std::vector<double>{0, -1, 1}));
  objective.kl_estimator = "k3";
  const std::vector<double> k3 = PenaltyOf(objective, Drawn(), reference);
  EXPECT_EQ(k3[0], 0);
  EXPECT_DOUBLE_EQ(k3[1], 2 * (std::exp(0.5) - 0.5 - 1));
  EXPECT_DOUBLE_EQ(k3[2], 2 * (std::exp(-0.5) + 0.5 - 1));
}

// Two groups of two over two minibatches; of one rank of two, which has the second group.
StepBatch TwoGroups() {
  StepBatch batch;
  batch.samples = {{1, 2}, {0, 2}, {1, 2}, {1, 2}};
  batch.group_sizes = {2, 2};
  batch.mine_begin = 2;
  batch.minibatches.resize(2);
  for (Minibatch& part : batch.minibatches) {
    part.leaves.resize(1);
    part.leaves[0].sequences = {Drawn()};
  }
  return batch;
}

TEST(RewardPenalty, AdvantagesAreMadeAnewOfWhatIsLeft) {
  const Config config = ParseConfig("", "test", {"objective.preset=dr_grpo"});
  StepBatch batch = TwoGroups();
  PenaliseSamples(config, std::vector<double>{0, 0, 0.5, -0.25}, batch);
  EXPECT_EQ(batch.minibatches[0].leaves[0].sequences[0].advantage, 0.5 - 0.875);
  EXPECT_EQ(batch.minibatches[1].leaves[0].sequences[0].advantage, 1.25 - 0.875);
  EXPECT_EQ(batch.metrics.at("reward_penalty"), 0.0625);
  EXPECT_EQ(batch.metrics.at("reward_shaped"), 0.75 - 0.0625);
}

TEST(RewardPenalty, WithACriticTokensBearItAndSamplesKeepTheirRewards) {
  const Config config = ParseConfig("", "test", {"objective.preset=ppo"});
  StepBatch batch = TwoGroups();
  PenaliseSamples(config, std::vector<double>{0, 0, 0.5, -0.25}, batch);
  EXPECT_EQ(batch.samples[2].reward, 1);
  EXPECT_EQ(batch.minibatches[0].leaves[0].sequences[0].advantage, 0);
  EXPECT_EQ(batch.metrics.at("reward_penalty"), 0.0625);
}

TEST(RewardPenalty, AnEmptyBatchHasNone) {
  const Config config = ParseConfig("", "test", {});
  StepBatch batch;
  batch.minibatches.resize(1);
  PenaliseSamples(config, {}, batch);
  EXPECT_FALSE(batch.metrics.contains("reward_penalty"));
}

}  // namespace
}  // namespace thresher::learner
