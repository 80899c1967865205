#include "common/comm/poll.h"

#include <gtest/gtest.h>

#include <vector>

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;

// A clock that the sleeper moves.
struct Bench {
  ManualClock clock;
  std::vector<std::chrono::microseconds> sleeps;
  Poller::Sleep sleep = [this](std::chrono::microseconds pause) {
    sleeps.push_back(pause);
    clock.Advance(pause);
  };
  Poller Until(Duration deadline) { return Poller(clock.Now() + deadline, clock, sleep); }
};

TEST(PollerTest, AnAnswerThatIsThereNeedsNoSleep) {
  Bench bench;
  int asked = 0;
  EXPECT_TRUE(bench.Until(1s).Await([&]() -> Result<bool> { return ++asked == 100; }).ok());
  EXPECT_EQ(asked, 100);
  EXPECT_TRUE(bench.sleeps.empty());
}

TEST(PollerTest, SleepsGrowToAMillisecond) {
  Bench bench;
  const Status status = bench.Until(1s).Await([] { return Result<bool>(false); });
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  ASSERT_GT(bench.sleeps.size(), 10u);
  EXPECT_EQ(bench.sleeps.front(), 50us);
  EXPECT_EQ(bench.sleeps[1], 100us);
  EXPECT_EQ(bench.sleeps.back(), 1000us);
  EXPECT_LT(bench.sleeps.size(), 1010u);
}

TEST(PollerTest, TheQuestionIsPutOnceMoreAfterTheDeadline) {
  Bench bench;
  // The thread was away over the deadline, and what it waits for has come meanwhile.
  bool away = false;
  const auto question = [&]() -> Result<bool> {
    if (away) return true;
    away = true;
    bench.clock.Advance(10s);
    return false;
  };
  EXPECT_TRUE(bench.Until(1s).Await(question).ok());
}

TEST(PollerTest, AnErrorEndsTheWait) {
  Bench bench;
  const Status status =
      bench.Until(1s).Await([]() -> Result<bool> { return Aborted("remote error"); });
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_EQ(status.message(), "remote error");
}

}  // namespace
}  // namespace thresher::comm
