#include "learner/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace thresher::learner {
namespace {

TEST(LearningRateSchedule, WarmUpRisesLinearlyFromPeakOverWToPeak) {
  for (const char* shape : {"constant", "linear", "cosine"}) {
    const LearningRateSchedule s{shape, 0.8, 0.1, 4, 20};
    EXPECT_DOUBLE_EQ(s.At(0), 0.2) << shape;
    EXPECT_DOUBLE_EQ(s.At(1), 0.4) << shape;
    EXPECT_DOUBLE_EQ(s.At(3), 0.8) << shape;
    EXPECT_DOUBLE_EQ(s.At(4), 0.8) << shape;  // the shape begins at the peak
  }
}

TEST(LearningRateSchedule, EndsAtTheFloorAtTheLastStep) {
  EXPECT_DOUBLE_EQ((LearningRateSchedule{"constant", 0.8, 0.1, 4, 20}.At(19)), 0.8);
  EXPECT_DOUBLE_EQ((LearningRateSchedule{"linear", 0.8, 0.1, 4, 20}.At(19)), 0.1);
  EXPECT_DOUBLE_EQ((LearningRateSchedule{"cosine", 0.8, 0.1, 4, 20}.At(19)), 0.1);
}

TEST(LearningRateSchedule, FollowsItsShapeInBetween) {
  // Warm-up of 4 of 21 steps: progress is (step - 4) / 16.
  const LearningRateSchedule linear{"linear", 1.0, 0.2, 4, 21};
  const LearningRateSchedule cosine{"cosine", 1.0, 0.2, 4, 21};
  for (std::uint32_t step = 4; step < 21; ++step) {
    const double progress = (step - 4) / 16.0;
    EXPECT_NEAR(linear.At(step), 1.0 - 0.8 * progress, 1e-15);
    EXPECT_NEAR(cosine.At(step), 0.2 + 0.4 * (1 + std::cos(std::numbers::pi * progress)), 1e-15);
  }
  EXPECT_NEAR(cosine.At(12), 0.6, 1e-15);
}

TEST(LearningRateSchedule, StaysAtTheFloorBeyondTheEnd) {
  EXPECT_DOUBLE_EQ((LearningRateSchedule{"linear", 1, 0.2, 0, 5}.At(50)), 0.2);
  EXPECT_DOUBLE_EQ((LearningRateSchedule{"cosine", 1, 0.2, 0, 5}.At(50)), 0.2);
}

TEST(LearningRateSchedule, PhasesOfOneStepAndPhasesThatAreAllWarmUpAreFinite) {
  for (const char* shape : {"constant", "linear", "cosine"}) {
    EXPECT_DOUBLE_EQ((LearningRateSchedule{shape, 0.5, 0, 0, 1}.At(0)), 0.5);
    EXPECT_DOUBLE_EQ((LearningRateSchedule{shape, 0.5, 0, 1, 1}.At(0)), 0.5);
    const LearningRateSchedule warm{shape, 0.5, 0, 5, 5};
    for (std::uint32_t step = 0; step < 5; ++step) {
      EXPECT_DOUBLE_EQ(warm.At(step), 0.1 * (step + 1));
    }
  }
}

TEST(LearningRateScheduleDeathTest, AnUnknownShapeIsABug) {
  EXPECT_DEATH((void)(LearningRateSchedule{"step", 1, 0, 0, 10}.At(3)), "step");
}

}  // namespace
}  // namespace thresher::learner
