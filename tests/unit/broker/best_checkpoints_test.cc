#include "broker/best_checkpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "common/base/random.h"

namespace thresher::broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// 4 supervised and 12 RL steps, a checkpoint after every second, an evaluation after every third
// RL step: versions 4, 7, 10, 13, 16, of which 4, 10 and 16 have a checkpoint.
Plan SmallPlan() {
  return Plan(
      ParseConfig("", "test",
                  {"supervised.steps=4", "supervised.warmup_steps=0", "rl.steps=12",
                   "checkpoint.every=2", "eval.every=3", "eval.every_items=4", "eval.items=4"}));
}

EvalSummary Passed(const EvalRound& round, double pass_at_1) {
  EvalSummary summary;
  summary.round = round;
  summary.pass_at = {Estimate{pass_at_1, pass_at_1, pass_at_1}};
  return summary;
}

TEST(BestCheckpoints, AreThoseWithTheHighestPassAt1AndThoseStillToBeEvaluated) {
  const Plan plan = SmallPlan();
  std::map<std::uint32_t, EvalSummary> evals;
  EXPECT_THAT(BestCheckpoints(plan, 0, evals, 1), IsEmpty());
  EXPECT_THAT(BestCheckpoints(plan, 10, evals, 1), ElementsAre(4, 10));
  for (const EvalRound& round : plan.evals()) {
    if (round.version.step == 4) evals[round.round] = Passed(round, 0.5);
  }
  EXPECT_THAT(BestCheckpoints(plan, 10, evals, 1), ElementsAre(4, 10)) << "10 may be better";
  for (const EvalRound& round : plan.evals()) {
    if (round.version.step == 10) evals[round.round] = Passed(round, 0.4);
  }
  EXPECT_THAT(BestCheckpoints(plan, 10, evals, 1), ElementsAre(4));
  EXPECT_THAT(BestCheckpoints(plan, 10, evals, 2), ElementsAre(4, 10));
  EXPECT_THAT(BestCheckpoints(plan, 16, evals, 1), ElementsAre(4, 16));
  EXPECT_THAT(BestCheckpoints(plan, 16, evals, 0), IsEmpty());
}

TEST(BestCheckpoints, OfEqualOnesTheNewerStays) {
  const Plan plan = SmallPlan();
  std::map<std::uint32_t, EvalSummary> evals;
  for (const EvalRound& round : plan.evals()) evals[round.round] = Passed(round, 0.25);
  EXPECT_THAT(BestCheckpoints(plan, 16, evals, 2), ElementsAre(10, 16));
}

// Against a model that asks of each step alone how many are better.
TEST(BestCheckpoints, AgreeWithTheNaiveModel) {
  RandomSequence random(3, TrajectoryId{Stream::kTrain, 0, 0, 0}, RandomPurpose::kBootstrap);
  const auto below = [&](int n) { return static_cast<int>(random.NextUniform() * n); };
  const Plan plan = SmallPlan();
  for (int i = 0; i < 2000; ++i) {
    const auto steps = static_cast<std::uint32_t>(below(17));
    const int best = below(5);
    std::map<std::uint32_t, EvalSummary> evals;
    for (const EvalRound& round : plan.evals()) {
      if (below(2) == 0) evals[round.round] = Passed(round, below(4) / 4.0);
    }
    std::set<std::uint32_t> expected;
    for (const std::uint32_t step : {4u, 10u, 16u}) {
      const auto pass = [&](std::uint32_t of) {
        for (const auto& [number, summary] : evals) {
          if (summary.round.version.step == of) return summary.pass_at_1().value;
        }
        return -1.0;
      };
      int better = 0;
      for (const std::uint32_t other : {4u, 10u, 16u}) {
        if (other > steps || other == step || pass(other) < 0) continue;
        better += pass(other) > pass(step) || (pass(other) == pass(step) && other > step);
      }
      if (best > 0 && step <= steps && (pass(step) < 0 || better < best)) expected.insert(step);
    }
    const auto kept = BestCheckpoints(plan, steps, evals, best);
    EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
    EXPECT_EQ(std::set<std::uint32_t>(kept.begin(), kept.end()), expected) << i;
  }
}

}  // namespace
}  // namespace thresher::broker
