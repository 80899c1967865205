#include "broker/step_figures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

// Two passes over what was put in: the naive side.
Spread NaiveSpread(const std::vector<double>& values) {
  Spread spread;
  spread.count = values.size();
  if (values.empty()) return spread;
  spread.min = *std::ranges::min_element(values);
  spread.max = *std::ranges::max_element(values);
  for (double v : values) spread.mean += v / static_cast<double>(values.size());
  for (double v : values) spread.deviation += (v - spread.mean) * (v - spread.mean);
  spread.deviation = std::sqrt(spread.deviation / static_cast<double>(values.size()));
  return spread;
}

void ExpectNear(const Spread& a, const Spread& b, const char* what) {
  EXPECT_EQ(a.count, b.count) << what;
  EXPECT_NEAR(a.mean, b.mean, 1e-12) << what;
  EXPECT_NEAR(a.deviation, b.deviation, 1e-12) << what;
  EXPECT_EQ(a.min, b.min) << what;
  EXPECT_EQ(a.max, b.max) << what;
}

struct Sample {
  bool arrived = false, batched = false, truncated = false, solved = false;
  double reward = 0;
  std::uint32_t length = 0, staleness = 0;
};

void ExpectSamples(const SampleFigures& figures, const std::vector<Sample>& samples) {
  std::vector<double> reward, length, staleness;
  double truncated = 0, solved = 0;
  for (const Sample& s : samples) {
    reward.push_back(s.reward);
    length.push_back(s.length);
    staleness.push_back(s.staleness);
    truncated += s.truncated;
    solved += s.solved;
  }
  const double count = std::max<double>(1, static_cast<double>(samples.size()));
  ExpectNear(figures.reward, NaiveSpread(reward), "reward");
  ExpectNear(figures.length, NaiveSpread(length), "length");
  ExpectNear(figures.staleness, NaiveSpread(staleness), "staleness");
  EXPECT_DOUBLE_EQ(figures.truncated, truncated / count);
  EXPECT_DOUBLE_EQ(figures.solved, solved / count);
}

StepPlan PlanOf(std::uint32_t items, std::uint32_t samples, std::uint32_t rounds) {
  StepPlan plan;
  plan.step = 9;
  plan.phase = Phase::kRl;
  plan.stream = Stream::kTrain;
  plan.items = items;
  plan.samples = samples;
  plan.rounds = rounds;
  plan.dynamic = rounds > 1;
  return plan;
}

TEST(StepFigures, AreThoseOfANaiveCountForAnyOutcomes) {
  std::mt19937 random(3);
  auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  for (int trial = 0; trial < 200; ++trial) {
    const StepPlan plan = PlanOf(1 + below(4), 1 + below(4), 1 + below(3));
    GroupAssembler groups;
    std::vector<Sample> arrived, batched;
    GroupFigures expected;
    double deviations = 0;
    for (std::uint32_t round = 0; round < 1 + below(plan.rounds); ++round) {
      const wire::ItemsIssued issued{
          Stream::kTrain, 0,   plan.FirstItem(round), plan.items, plan.samples, plan.step,
          round,          V(9)};
      ASSERT_TRUE(groups.Open(issued).ok());
      for (std::uint32_t item = 0; item < plan.items; ++item) {
        std::vector<double> rewards;
        std::uint32_t solved = 0;
        for (std::uint32_t k = 0; k < plan.samples; ++k) {
          Sample s;
          s.arrived = below(8) > 0;
          s.batched = s.arrived && below(2) > 0;
          s.reward = below(3) * 0.5;
          s.length = below(50);
          s.truncated = below(3) == 0;
          s.staleness = below(4);
          const bool scored = below(4) > 0;
          s.solved = scored && s.reward >= 1;
          const TrajectoryId id = Id(Stream::kTrain, issued.first_item + item, k);
          if (!s.arrived) {
            ASSERT_TRUE(groups.Drop(id).ok());
            continue;
          }
          wire::SampleAccepted record = Accepted(id, s.reward);
          record.loss_tokens = s.length;
          record.truncated = s.truncated;
          record.outcome = scored ? OutcomeKind::kScored : OutcomeKind::kCrashed;
          record.oldest_version = V(plan.step - s.staleness);
          ASSERT_TRUE(groups.Accept(record).ok());
          if (s.batched) {
            ASSERT_TRUE(groups.Batch(id).ok());
          } else if (below(2) > 0) {
            ASSERT_TRUE(groups.Drop(id).ok());  // filtered out: it arrived all the same
          }
          arrived.push_back(s);
          if (s.batched) batched.push_back(s);
          rewards.push_back(s.reward);
          solved += s.solved;
        }
        ++expected.groups;
        expected.solved_all += solved == plan.samples;
        expected.solved_none += solved == 0;
        if (rewards.size() < plan.samples) continue;
        const Spread spread = NaiveSpread(rewards);
        ++expected.complete;
        expected.equal_rewards += spread.min == spread.max;
        deviations += spread.deviation;
      }
    }
    const StepFigures figures = FiguresOf(groups, plan);
    ExpectSamples(figures.arrived, arrived);
    ExpectSamples(figures.trained, batched);
    EXPECT_EQ(figures.groups.groups, expected.groups);
    EXPECT_EQ(figures.groups.complete, expected.complete);
    EXPECT_EQ(figures.groups.solved_all, expected.solved_all);
    EXPECT_EQ(figures.groups.solved_none, expected.solved_none);
    EXPECT_EQ(figures.groups.equal_rewards, expected.equal_rewards);
    const double complete = std::max<double>(1, static_cast<double>(expected.complete));
    EXPECT_NEAR(figures.groups.deviation, deviations / complete, 1e-12);
    if (HasFailure()) return;
  }
}

TEST(StepFigures, OfAStepThatIsNotOpenAreZero) {
  EXPECT_EQ(FiguresOf(GroupAssembler(), PlanOf(2, 2, 1)), StepFigures());
}

TEST(StepFigures, StalenessIsOfTrainingSamplesAloneAndStopsWhereItsFieldEnds) {
  GroupAssembler groups;
  ASSERT_TRUE(groups.Open({Stream::kTrain, 0, 0, 1, 1, 100000, 0, V(100000)}).ok());
  wire::SampleAccepted old = Accepted(Id(Stream::kTrain, 0), 0);
  ASSERT_TRUE(groups.Accept(old).ok());
  EXPECT_EQ(groups.FindSlot(old.id)->staleness, 65535);
  ASSERT_TRUE(groups.Open({Stream::kSupervised, 0, 0, 1, 1, 7, 0, V(0)}).ok());
  wire::SampleAccepted trace = Accepted(Id(Stream::kSupervised, 0), 0);
  ASSERT_TRUE(groups.Accept(trace).ok());
  EXPECT_EQ(groups.FindSlot(trace.id)->staleness, 0);
}

}  // namespace
}  // namespace thresher::broker
