#include "common/config/plan.h"

#include <gtest/gtest.h>

#include <set>

namespace thresher {
namespace {

Config Make(std::vector<std::string> overrides) { return ParseConfig("", "test", overrides); }

TEST(PlanTest, ItemsOfEachStreamAreConsecutiveAndNeverReused) {
  Plan plan(Make({"supervised.steps=3", "supervised.warmup_steps=0", "supervised.batch=10",
                  "rl.steps=4", "rl.groups=5", "rl.group_size=2"}));
  ASSERT_EQ(plan.total_steps(), 7u);
  std::uint64_t next_supervised = 0, next_train = 0;
  for (std::uint32_t s = 0; s < plan.total_steps(); ++s) {
    StepPlan step = plan.Step(s);
    EXPECT_EQ(step.step, s);
    if (s < 3) {
      EXPECT_EQ(step.phase, Phase::kSupervised);
      EXPECT_EQ(step.stream, Stream::kSupervised);
      EXPECT_EQ(step.first_item, next_supervised);
      EXPECT_EQ(step.items, 10u);
      EXPECT_EQ(step.samples, 1u);
      EXPECT_EQ(step.phase_step, s);
      next_supervised += step.items;
    } else {
      EXPECT_EQ(step.phase, Phase::kRl);
      EXPECT_EQ(step.stream, Stream::kTrain);
      EXPECT_EQ(step.first_item, next_train);
      EXPECT_EQ(step.samples, 2u);
      EXPECT_EQ(step.phase_step, s - 3);
      next_train += step.items;
    }
  }
  EXPECT_EQ(next_train, 20u);
}

TEST(PlanTest, RoundsOfDynamicSamplingHaveItemsOfTheirOwn) {
  Plan plan(Make({"supervised.steps=0", "rl.steps=3", "rl.groups=5", "rl.dynamic_sampling=true",
                  "rl.max_rounds=4"}));
  std::uint64_t next = 0;
  for (std::uint32_t s = 0; s < 3; ++s) {
    const StepPlan step = plan.Step(s);
    EXPECT_TRUE(step.dynamic);
    ASSERT_EQ(step.rounds, 4u);
    for (std::uint32_t round = 0; round < 4; ++round, next += 5) {
      EXPECT_EQ(step.FirstItem(round), next);
    }
  }
  const StepPlan without = Plan(Make({"supervised.steps=0", "rl.groups=5"})).Step(2);
  EXPECT_EQ(without.first_item, 10u);
  EXPECT_EQ(without.rounds, 1u);
}

TEST(PlanTest, KnowsTheStepOfEveryItem) {
  for (const char* dynamic : {"false", "true"}) {
    const Plan plan(Make({"supervised.steps=3", "supervised.warmup_steps=0", "supervised.batch=10",
                          "rl.steps=4", "rl.groups=5", "rl.max_rounds=3",
                          std::string("rl.dynamic_sampling=") + dynamic}));
    std::uint64_t end = 0;
    for (std::uint32_t s = 0; s < plan.total_steps(); ++s) {
      const StepPlan step = plan.Step(s);
      end = step.FirstItem(step.rounds);
      for (std::uint64_t item = step.first_item; item < end; ++item) {
        EXPECT_EQ(plan.StepOfItem(step.stream, item), s);
      }
    }
    EXPECT_EQ(plan.StepOfItem(Stream::kTrain, end), std::nullopt);
    EXPECT_EQ(plan.StepOfItem(Stream::kSupervised, 30), std::nullopt);
    EXPECT_EQ(plan.StepOfItem(Stream::kEval, 0), std::nullopt);
  }
}

TEST(PlanTest, PublishesWhatIsUsedAndTheLastVersion) {
  Plan plan(Make({"supervised.steps=5", "supervised.warmup_steps=0", "rl.steps=3"}));
  for (std::uint32_t v = 0; v < 5; ++v) EXPECT_FALSE(plan.IsPublished(v)) << v;
  for (std::uint32_t v = 5; v <= 8; ++v) EXPECT_TRUE(plan.IsPublished(v)) << v;
  EXPECT_FALSE(plan.IsPublished(9));
  EXPECT_FALSE(plan.PublishesInitial());
  EXPECT_FALSE(plan.Step(3).publish_after);
  EXPECT_TRUE(plan.Step(4).publish_after);
  EXPECT_TRUE(plan.Step(7).publish_after);
}

TEST(PlanTest, RlAloneStartsFromThePublishedInitialVersion) {
  Plan plan(Make({"supervised.steps=0", "rl.steps=2"}));
  EXPECT_TRUE(plan.PublishesInitial());
  ASSERT_EQ(plan.evals().size(), 2u);
  EXPECT_EQ(plan.evals()[0].label, "start");
  EXPECT_EQ(plan.evals()[0].version, (PolicyVersion{0, 0}));
  EXPECT_EQ(plan.evals()[1].label, "final");
  EXPECT_EQ(plan.evals()[1].version, (PolicyVersion{0, 2}));
}

TEST(PlanTest, SupervisedAloneEndsWithItsEvaluation) {
  Plan plan(Make({"supervised.steps=60", "rl.steps=0", "rl.group_size=1"}));
  ASSERT_EQ(plan.evals().size(), 1u);
  EXPECT_EQ(plan.evals()[0].label, "supervised");
  EXPECT_TRUE(plan.evals()[0].phase_end);
  EXPECT_TRUE(plan.IsPublished(60));
  EXPECT_FALSE(plan.IsPublished(59));
}

TEST(PlanTest, EvaluationsAdvanceTheirItemsInVersionOrder) {
  Plan plan(Make({"supervised.steps=100", "rl.steps=10", "eval.items=40", "eval.every=4",
                  "eval.every_items=7", "eval.samples=3"}));
  std::vector<std::string> labels;
  std::uint64_t next = 0;
  for (const EvalRound& round : plan.evals()) {
    EXPECT_EQ(round.round, labels.size());
    EXPECT_EQ(round.first_item, next);
    EXPECT_EQ(round.items, round.phase_end ? 40u : 7u);
    EXPECT_EQ(round.samples, 3u);
    EXPECT_TRUE(plan.IsPublished(round.version.step));
    next += round.items;
    labels.push_back(round.label);
  }
  EXPECT_EQ(labels, (std::vector<std::string>{"supervised", "step 4", "step 8", "final"}));
  EXPECT_EQ(plan.evals()[1].version.step, 104u);
}

TEST(PlanTest, TheLastStepIsEvaluatedOnceAsFinal) {
  Plan plan(Make({"rl.steps=8", "eval.every=4"}));
  ASSERT_EQ(plan.evals().size(), 3u);  // supervised, step 4, final; no "step 8"
  EXPECT_EQ(plan.evals()[2].label, "final");
}

TEST(PlanTest, NoItemsMeansNoEvaluation) {
  EXPECT_TRUE(Plan(Make({"eval.items=0"})).evals().empty());
}

TEST(PlanTest, CheckpointsEveryNAndAtTheEndOfPhases) {
  Plan plan(Make(
      {"supervised.steps=5", "supervised.warmup_steps=0", "rl.steps=6", "checkpoint.every=4"}));
  std::set<std::uint32_t> made;
  for (std::uint32_t s = 0; s < plan.total_steps(); ++s) {
    if (plan.Step(s).checkpoint_after) made.insert(s + 1);
  }
  EXPECT_EQ(made, (std::set<std::uint32_t>{4, 5, 8, 11}));
}

TEST(PlanTest, LeavesTileTheBatchEvenWhenItDoesNotDivide) {
  for (std::uint32_t items : {0u, 1u, 7u, 8u, 33u, 4000000000u}) {
    for (std::uint32_t leaves : {1u, 2u, 8u, 64u}) {
      std::uint32_t next = 0;
      for (std::uint32_t l = 0; l < leaves; ++l) {
        LeafRange range = GradientLeaf(items, leaves, l);
        EXPECT_EQ(range.begin, next);
        EXPECT_LE(range.end - range.begin, items / leaves + 1);
        next = range.end;
      }
      EXPECT_EQ(next, items);
    }
  }
}

TEST(PlanDeathTest, StepBeyondTheEndIsABug) {
  Plan plan(Make({"rl.steps=8"}));
  EXPECT_DEATH((void)plan.Step(plan.total_steps()), "check failed");
}

}  // namespace
}  // namespace thresher
