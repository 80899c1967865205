#include "launch/trajectory_filter.h"

#include <gtest/gtest.h>

namespace thresher::launch {
namespace {

TEST(ParseRange, NumbersAndOpenEnds) {
  const NumberRange one = ParseRange("5", "--x").value();
  EXPECT_TRUE(one.Holds(5));
  EXPECT_FALSE(one.Holds(5.5));
  const NumberRange both = ParseRange("-1:0.5", "--x").value();
  EXPECT_TRUE(both.Holds(-1) && both.Holds(0.5) && !both.Holds(-1.01) && !both.Holds(0.51));
  EXPECT_TRUE(ParseRange("3:", "--x")->Holds(1e9));
  EXPECT_FALSE(ParseRange("3:", "--x")->Holds(2));
  EXPECT_TRUE(ParseRange(":3", "--x")->Holds(-1e9));
  EXPECT_FALSE(ParseRange(":3", "--x")->Holds(4));
  EXPECT_TRUE(NumberRange().Holds(0));
}

TEST(ParseRange, AnythingElseIsRefusedByOption) {
  for (const char* text : {"", ":", "a", "1:b", "5:4", "1:2:3", "nan", "1:inf", "1 :2"}) {
    const auto range = ParseRange(text, "--reward");
    ASSERT_FALSE(range.ok()) << text;
    EXPECT_NE(range.status().message().find("--reward"), std::string::npos);
  }
}

Trajectory Sample() {
  Trajectory t;
  t.id = {Stream::kTrain, 0, 3, 1};
  t.tokens = {1, 2, 3, 4};
  t.versions = {{2, 4, {0, 8}}, {4, 4, {0, 9}}};
  t.actor = ActorId(2);
  t.outcome = {};
  t.outcome.kind = OutcomeKind::kTimedOut;
  t.outcome.reward = -0.5;
  t.outcome.reason = "slow";
  return t;
}

// Each filter alone lets the sample pass with one value and not with another.
TEST(TrajectoryFilter, EveryFilterDecides) {
  using Set = void (*)(TrajectoryFilter&);
  const std::pair<Set, Set> cases[] = {
      {[](auto& f) { f.stream = Stream::kTrain; }, [](auto& f) { f.stream = Stream::kEval; }},
      {[](auto& f) { f.item = 3; }, [](auto& f) { f.item = 4; }},
      {[](auto& f) { f.actor = 2; }, [](auto& f) { f.actor = 0; }},
      {[](auto& f) { f.outcome = OutcomeKind::kTimedOut; },
       [](auto& f) { f.outcome = OutcomeKind::kScored; }},
      {[](auto& f) { f.reason = "slow"; }, [](auto& f) { f.reason = "slo"; }},
      {[](auto& f) {
         f.step = {8, 8};
       },
       [](auto& f) {
         f.step = {9, 9};
       }},
      {[](auto& f) {
         f.reward = {-1, 0};
       },
       [](auto& f) {
         f.reward = {0, 1};
       }},
      {[](auto& f) {
         f.length = {4, 4};
       },
       [](auto& f) {
         f.length = {5, 9};
       }},
      {[](auto& f) { f.prompt_hash = Sample().prompt_hash.ToString().substr(0, 5); },
       [](auto& f) { f.prompt_hash = "f"; }}};
  EXPECT_TRUE(TrajectoryFilter().Holds(Sample()));
  int number = 0;
  for (const auto& [passes, stops] : cases) {
    TrajectoryFilter filter;
    passes(filter);
    EXPECT_TRUE(filter.Holds(Sample())) << number;
    stops(filter);
    EXPECT_FALSE(filter.Holds(Sample())) << number;
    ++number;
  }
}

TEST(TrajectoryFilter, TheIdAloneDecidesOnlyWhatItHolds) {
  TrajectoryFilter filter;
  filter.item = 3;
  filter.reward = {100, 200};
  EXPECT_TRUE(filter.MayHold(Sample().id));
  EXPECT_FALSE(filter.MayHold({Stream::kTrain, 0, 4, 1}));
}

TEST(ParseOutcome, NamesAllThereAre) {
  EXPECT_EQ(ParseOutcome("rejected").value(), OutcomeKind::kRejected);
  EXPECT_NE(ParseOutcome("lost").status().message().find(
                "scored, unparsable, timed_out, crashed, rejected"),
            std::string::npos);
}

}  // namespace
}  // namespace thresher::launch
