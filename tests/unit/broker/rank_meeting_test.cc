#include "broker/rank_meeting.h"

#include <gtest/gtest.h>

namespace thresher::broker {
namespace {

using namespace std::chrono_literals;

class RankMeetingTest : public ::testing::Test {
 protected:
  // Whether all ranks are there; their hellos are then in `met_`.
  bool Come(std::uint32_t rank, std::uint64_t incarnation, const std::string& hello,
            const std::string& job = "job", std::uint32_t world = 2) {
    auto come = meeting_.Come(job, world, rank, {Incarnation(incarnation), hello, clock_.Now()});
    if (!come.ok()) {
      ADD_FAILURE() << come.status().ToString();
      return false;
    }
    met_.clear();
    if (*come == nullptr) return false;
    for (const auto& [r, member] : **come) met_.push_back(member.hello);
    return true;
  }

  ManualClock clock_;
  RankMeeting meeting_;
  std::vector<std::string> met_;
};

TEST_F(RankMeetingTest, AllMeetWhenTheLastHasComeAndLateQuestionsGetTheSameAnswer) {
  EXPECT_FALSE(Come(1, 11, "one"));
  EXPECT_FALSE(Come(1, 11, "one"));
  EXPECT_TRUE(Come(0, 10, "zero"));
  EXPECT_EQ(met_, (std::vector<std::string>{"zero", "one"}));
  clock_.Advance(60s);
  EXPECT_TRUE(Come(1, 11, "one"));
  EXPECT_EQ(met_, (std::vector<std::string>{"zero", "one"}));
}

TEST_F(RankMeetingTest, JobsDoNotMeetEachOther) {
  EXPECT_FALSE(Come(0, 10, "old", "first"));
  EXPECT_FALSE(Come(1, 21, "new", "second"));
  EXPECT_TRUE(Come(0, 20, "new", "second"));
  EXPECT_EQ(met_, (std::vector<std::string>{"new", "new"}));
}

TEST_F(RankMeetingTest, ARestartedJobOfTheSameNameDoesNotMeetWhatTheOldOneLeft) {
  EXPECT_FALSE(Come(0, 10, "old"));
  EXPECT_TRUE(Come(1, 11, "old"));
  EXPECT_FALSE(Come(1, 21, "new"));
  EXPECT_TRUE(Come(0, 20, "new"));
  EXPECT_EQ(met_, (std::vector<std::string>{"new", "new"}));
}

TEST_F(RankMeetingTest, AHelloThatIsNotRepeatedIsForgotten) {
  EXPECT_FALSE(Come(0, 10, "dead"));
  clock_.Advance(RankMeeting::kFresh + 1s);
  EXPECT_FALSE(Come(1, 21, "new"));  // of the next job, whose rank 0 has yet to come
  clock_.Advance(2s);
  EXPECT_FALSE(Come(1, 21, "new"));
  EXPECT_TRUE(Come(0, 20, "new"));
  EXPECT_EQ(met_, (std::vector<std::string>{"new", "new"}));
}

TEST_F(RankMeetingTest, APlaceIsGivenUpAfterALongTime) {
  EXPECT_FALSE(Come(0, 10, "zero"));
  clock_.Advance(RankMeeting::kForgotten + 1s);
  EXPECT_FALSE(Come(0, 30, "zero", "another"));
  EXPECT_TRUE(Come(0, 10, "zero", "job", 1));  // another world: the place is new
}

TEST_F(RankMeetingTest, WhatDoesNotFitIsRefused) {
  EXPECT_FALSE(Come(0, 10, "zero"));
  const auto refused = [&](std::uint32_t world, std::uint32_t rank, std::size_t bytes) {
    return meeting_
        .Come("job", world, rank, {Incarnation(1), std::string(bytes, 'x'), clock_.Now()})
        .status();
  };
  EXPECT_EQ(refused(2, 2, 1).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused(0, 0, 1).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused(4, 1, 1).message(), "learner job 'job' has 2 ranks, rank 1 says 4");
  EXPECT_EQ(refused(2, 1, RankMeeting::kMaxHelloBytes + 1).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Come(1, 11, "one"));  // nothing of that was kept
}

}  // namespace
}  // namespace thresher::broker
