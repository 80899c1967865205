#include "broker/curriculum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace thresher::broker {
namespace {

using Kind = Curriculum::Kind;
using Levels = std::vector<std::uint32_t>;

TEST(Curriculum, AWindowMovesUpWhenTheLevelIsSolvedAndDownWhenItIsNot) {
  Curriculum curriculum({Kind::kWindow, 3, 4, 25, 75});
  EXPECT_EQ(curriculum.NextLevels(2), (Levels{0, 0}));
  for (int i = 0; i < 3; ++i) curriculum.Commit(0, 8, 8);
  EXPECT_EQ(curriculum.NextLevels(1), (Levels{0}));  // a window is not full
  curriculum.Commit(0, 0, 8);                        // three quarters of it
  EXPECT_EQ(curriculum.NextLevels(1), (Levels{1}));
  for (int i = 0; i < 9; ++i) curriculum.Commit(1, 4, 8);
  EXPECT_EQ(curriculum.NextLevels(1), (Levels{1}));
  for (int i = 0; i < 2; ++i) curriculum.Commit(1, 0, 8);
  EXPECT_EQ(curriculum.NextLevels(1), (Levels{0}));  // the newest four: a quarter
  curriculum.Commit(1, 8, 8);                        // issued before it went down
  EXPECT_EQ(curriculum.NextLevels(1), (Levels{0}));
}

TEST(Curriculum, AWindowStaysWithinItsLevels) {
  Curriculum curriculum({Kind::kWindow, 2, 1, 20, 80});
  for (int i = 0; i < 3; ++i) curriculum.Commit(0, 0, 4);
  EXPECT_EQ(curriculum.NextLevels(1), (Levels{0}));
  curriculum.Commit(0, 4, 4);
  for (int i = 0; i < 3; ++i) curriculum.Commit(1, 4, 4);
  EXPECT_EQ(curriculum.NextLevels(1), (Levels{1}));
}

TEST(Curriculum, TheLevelThatIsSolvedHalfOfTheTimeGetsMostGroups) {
  Curriculum curriculum({Kind::kVariance, 3, 50, 20, 80});
  for (int i = 0; i < 50; ++i) {
    curriculum.Commit(0, 8, 8);
    curriculum.Commit(1, 4, 8);
    curriculum.Commit(2, 0, 8);
  }
  const Levels levels = curriculum.NextLevels(1000);
  EXPECT_GT(std::ranges::count(levels, 1u), 950);
  EXPECT_GE(std::ranges::count(levels, 0u), 1);
  EXPECT_GE(std::ranges::count(levels, 2u), 1);
}

TEST(Curriculum, OldOutcomesDoNotCount) {
  Curriculum curriculum({Kind::kVariance, 2, 5, 20, 80});
  Curriculum fresh = curriculum;
  for (int i = 0; i < 40; ++i) curriculum.Commit(0, 3, 8);
  for (int i = 0; i < 5; ++i) {
    curriculum.Commit(0, 7, 8);
    fresh.Commit(0, 7, 8);
  }
  EXPECT_EQ(curriculum, fresh);
}

// The state is a fold over committed groups: continued from any point it is the same.
TEST(Curriculum, ContinuesFromACopyAsIfNothingHadHappened) {
  std::mt19937 random(9);
  for (Kind kind : {Kind::kWindow, Kind::kVariance}) {
    Curriculum whole({kind, 4, 6, 20, 80});
    Curriculum half = whole;
    for (int i = 0; i < 400; ++i) {
      if (i % 37 == 0) half = whole;
      const auto level = static_cast<std::uint32_t>(random() % 4);
      const auto solved = static_cast<std::uint32_t>(random() % 9);
      whole.Commit(level, solved, 8);
      half.Commit(level, solved, 8);
      EXPECT_EQ(whole.NextLevels(20), half.NextLevels(20));
    }
    EXPECT_EQ(whole, half);
  }
}

}  // namespace
}  // namespace thresher::broker
