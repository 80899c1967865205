#include "common/base/clock.h"

#include <gtest/gtest.h>

namespace thresher {
namespace {

TEST(ManualClockTest, MovesOnlyWhenTold) {
  ManualClock clock;
  TimePoint start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(std::chrono::milliseconds(1500));
  EXPECT_EQ(clock.Now() - start, std::chrono::milliseconds(1500));
}

TEST(SystemClockTest, NeverGoesBackAndKnowsTheCentury) {
  TimePoint last = SystemClock().Now();
  for (int i = 0; i < 1000; ++i) {
    TimePoint now = SystemClock().Now();
    ASSERT_GE(now, last);
    last = now;
  }
  EXPECT_GT(SystemClock().WallTime(), std::chrono::hours(24 * 365 * 50));  // after 2020
}

}  // namespace
}  // namespace thresher
