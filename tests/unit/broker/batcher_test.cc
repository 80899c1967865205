#include "broker/batcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

class BatcherTest : public ::testing::Test {
 protected:
  Config config_ = TinyConfig();
  Plan plan_{config_};
  StepPlan rl_ = plan_.Step(2);  // the first RL step: 3 groups of 2

  GroupAssembler Opened(const StepPlan& step) {
    GroupAssembler groups;
    EXPECT_TRUE(groups.Open(Issued(step, V(step.step))).ok());
    return groups;
  }
  std::vector<TrajectoryId> Ids(const StepPlan& step) {
    std::vector<TrajectoryId> ids;
    for (std::uint64_t item = 0; item < step.items; ++item) {
      for (std::uint32_t s = 0; s < step.samples; ++s) {
        ids.push_back(Id(step.stream, step.first_item + item, s));
      }
    }
    return ids;
  }
};

TEST_F(BatcherTest, OrderOfArrivalDecidesNothing) {
  std::vector<TrajectoryId> canonical = Ids(rl_);
  std::vector<TrajectoryId> ids = canonical;
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    std::shuffle(ids.begin(), ids.end(), random);
    GroupAssembler groups = Opened(rl_);
    for (const TrajectoryId& id : ids) {
      ASSERT_TRUE(groups.Accept(Accepted(id, id.sample)).ok());
    }
    Composition composed = ComposeBatch(groups, rl_, 0, true);
    EXPECT_EQ(composed.batch.ids, canonical);
    std::vector<wire::BatchEntry> entries;
    for (const TrajectoryId& id : canonical) entries.push_back({id, Accepted(id).content_hash});
    EXPECT_EQ(composed.batch.digest, wire::HashBatch(entries));
    EXPECT_EQ(composed.batch.loss_tokens, 3 * canonical.size());
    EXPECT_TRUE(composed.drops.empty());
  }
}

TEST_F(BatcherTest, DropsGroupsWithoutVarianceInRlOnly) {
  GroupAssembler groups = Opened(rl_);
  for (const TrajectoryId& id : Ids(rl_)) {
    double reward = id.item == rl_.first_item + 1 ? 1 : id.sample;
    ASSERT_TRUE(groups.Accept(Accepted(id, reward)).ok());
  }
  Composition composed = ComposeBatch(groups, rl_, 0, true);
  ASSERT_EQ(composed.drops.size(), 2u);
  EXPECT_EQ(composed.drops[0].reason, wire::DropReason::kZeroVariance);
  EXPECT_EQ(composed.batch.ids.size(), 4u);
  EXPECT_EQ(ComposeBatch(groups, rl_, 0, false).batch.ids.size(), 6u);

  StepPlan supervised = plan_.Step(0);
  GroupAssembler traces = Opened(supervised);
  for (const TrajectoryId& id : Ids(supervised)) ASSERT_TRUE(traces.Accept(Accepted(id, 1)).ok());
  EXPECT_EQ(ComposeBatch(traces, supervised, 0, true).batch.ids.size(), 4u);
}

TEST_F(BatcherTest, AGroupWithAMissingSampleIsNotTrained) {
  GroupAssembler groups = Opened(rl_);
  TrajectoryId lost = Id(Stream::kTrain, rl_.first_item, 1);
  for (const TrajectoryId& id : Ids(rl_)) {
    if (id == lost) {
      ASSERT_TRUE(groups.Drop(id).ok());
    } else {
      ASSERT_TRUE(groups.Accept(Accepted(id, id.sample)).ok());
    }
  }
  Composition composed = ComposeBatch(groups, rl_, 0, true);
  ASSERT_EQ(composed.drops.size(), 1u);
  EXPECT_EQ(composed.drops[0].reason, wire::DropReason::kNotSelected);
  EXPECT_EQ(composed.drops[0].id, Id(Stream::kTrain, rl_.first_item, 0));
  EXPECT_EQ(composed.batch.ids.size(), 4u);
}

TEST_F(BatcherTest, ACompositionCutShortByACrashEndsTheSame) {
  auto fill = [&](GroupAssembler& groups) {
    for (const TrajectoryId& id : Ids(rl_)) {
      double reward = id.item == rl_.first_item ? 1 : id.sample;
      ASSERT_TRUE(groups.Accept(Accepted(id, reward)).ok());
    }
  };
  GroupAssembler groups = Opened(rl_);
  fill(groups);
  Composition whole = ComposeBatch(groups, rl_, 0, true);
  ASSERT_EQ(whole.drops.size(), 2u);
  ASSERT_TRUE(groups.Drop(whole.drops[0].id).ok());  // then the broker died
  Composition rest = ComposeBatch(groups, rl_, 0, true);
  ASSERT_EQ(rest.drops.size(), 1u);
  EXPECT_EQ(rest.drops[0].reason, wire::DropReason::kZeroVariance);
  EXPECT_EQ(rest.batch.digest, whole.batch.digest);
}

// Rounds of 3 groups of 2, at most 3 rounds.
class DynamicBatcherTest : public ::testing::Test {
 protected:
  Config config_ = TinyConfig({"rl.dynamic_sampling=true", "rl.max_rounds=3"});
  StepPlan step_ = Plan(config_).Step(2);
  GroupAssembler groups_;

  void Open(std::uint32_t round) {
    wire::ItemsIssued issued = Issued(step_, V(step_.step));
    issued.first_item = step_.FirstItem(round);
    issued.round = round;
    ASSERT_TRUE(groups_.Open(issued).ok());
  }
  // Every group of the round arrives; those with a '+' have rewards that differ, of those with an
  // 'x' a sample is lost.
  void Finish(std::uint32_t round, const std::string& kinds) {
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      const TrajectoryId first = Id(Stream::kTrain, step_.FirstItem(round) + i, 0);
      const TrajectoryId second = Id(Stream::kTrain, first.item, 1);
      ASSERT_TRUE(groups_.Accept(Accepted(first, 0)).ok());
      ASSERT_TRUE((kinds[i] == 'x' ? groups_.Drop(second).status()
                                   : groups_.Accept(Accepted(second, kinds[i] == '+')))
                      .ok());
    }
  }
  // Ordinals, over rounds, of the groups in the batch.
  std::vector<std::uint64_t> Chosen(const Composition& composed) const {
    std::vector<std::uint64_t> chosen;
    for (const TrajectoryId& id : composed.batch.ids) {
      if (id.sample == 0) chosen.push_back(id.item - step_.first_item);
    }
    return chosen;
  }
};

TEST_F(DynamicBatcherTest, ARoundIsAskedForWhenAllBeforeAreCompleteAndNotEnough) {
  EXPECT_EQ(StageOf(groups_, step_), StepStage::kWaiting);
  Open(0);
  EXPECT_EQ(StageOf(groups_, step_), StepStage::kWaiting);
  Finish(0, "+-+");
  EXPECT_EQ(StageOf(groups_, step_), StepStage::kNextRound);
  Open(1);
  EXPECT_EQ(StageOf(groups_, step_), StepStage::kWaiting);
  EXPECT_EQ(RoundsIssued(groups_, step_.step), 2u);
  Finish(1, "-x-");
  EXPECT_EQ(StageOf(groups_, step_), StepStage::kNextRound);
  Open(2);
  Finish(2, "---");
  EXPECT_EQ(StageOf(groups_, step_), StepStage::kShort);
  EXPECT_EQ(InformativeGroups(groups_, step_), 2u);
  EXPECT_EQ(Chosen(ComposeBatch(groups_, step_, 0, true)), (std::vector<std::uint64_t>{0, 2}));
}

TEST_F(DynamicBatcherTest, TheFirstInIssueOrderAreTrainedAndTheRestIsSurplus) {
  Open(0);
  Finish(0, "-+x");
  Open(1);
  Finish(1, "+++");
  EXPECT_EQ(StageOf(groups_, step_), StepStage::kReady);
  const Composition composed = ComposeBatch(groups_, step_, 0, true);
  EXPECT_EQ(Chosen(composed), (std::vector<std::uint64_t>{1, 3, 4}));
  std::map<std::uint64_t, wire::DropReason> reasons;
  for (const wire::SampleDropped& drop : composed.drops) {
    reasons[drop.id.item - step_.first_item] = drop.reason;
  }
  EXPECT_EQ(reasons,
            (std::map<std::uint64_t, wire::DropReason>{{0, wire::DropReason::kZeroVariance},
                                                       {2, wire::DropReason::kNotSelected},
                                                       {5, wire::DropReason::kSurplus}}));
  // Cut short by a crash, it ends the same.
  for (const wire::SampleDropped& drop : composed.drops) {
    ASSERT_TRUE(groups_.Drop(drop.id).ok());
    EXPECT_EQ(StageOf(groups_, step_), StepStage::kReady);
    EXPECT_EQ(ComposeBatch(groups_, step_, 0, true).batch.digest, composed.batch.digest);
  }
  EXPECT_TRUE(ComposeBatch(groups_, step_, 0, true).drops.empty());
}

TEST_F(DynamicBatcherTest, LeavesAreCutByThePlaceInTheBatch) {
  std::vector<TrajectoryId> batch;
  for (std::uint64_t item : {1, 3, 8}) {
    for (std::uint32_t s = 0; s < 2; ++s) {
      batch.push_back(Id(Stream::kTrain, step_.first_item + item, s));
    }
  }
  std::vector<TrajectoryId> joined;
  for (std::uint32_t leaf = 0; leaf < 2; ++leaf) {
    const auto ids = LeafOf(batch, step_, 2, leaf);
    EXPECT_EQ(ids.size(), leaf == 0 ? 2u : 4u);  // one group, two groups
    joined.insert(joined.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(joined, batch);
}

TEST_F(BatcherTest, LeavesAreCutByItemWhateverWasDropped) {
  StepPlan step = rl_;
  step.items = 8;
  std::vector<TrajectoryId> batch;
  for (std::uint64_t item : {0, 1, 5, 7})
    batch.push_back(Id(Stream::kTrain, step.first_item + item));
  std::vector<TrajectoryId> joined;
  for (std::uint32_t leaf = 0; leaf < 4; ++leaf) {
    for (const TrajectoryId& id : LeafOf(batch, step, 4, leaf)) {
      EXPECT_EQ((id.item - step.first_item) / 2, leaf);
      joined.push_back(id);
    }
  }
  EXPECT_EQ(joined, batch);
  EXPECT_TRUE(LeafOf(batch, step, 4, 1).empty());
}

TEST_F(BatcherTest, PartsRespectTheLimitAndLoseNothing) {
  EXPECT_EQ(CutParts({}, 10), (std::vector<std::size_t>{0}));
  EXPECT_EQ(CutParts({4, 4, 4}, 8), (std::vector<std::size_t>{0, 2}));
  EXPECT_EQ(CutParts({20, 1, 20}, 8), (std::vector<std::size_t>{0, 1, 2}));
  EXPECT_EQ(CutParts({3, 3, 2}, 8), (std::vector<std::size_t>{0}));
}

}  // namespace
}  // namespace thresher::broker
