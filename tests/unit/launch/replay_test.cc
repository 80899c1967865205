#include "launch/replay.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace thresher::launch {
namespace {

Trajectory Record() {
  Trajectory t;
  t.tokens = {1, 7, 8, 9, 2};
  t.segments = {{0, 2, Role::kPrompt, false}, {2, 5, Role::kPolicy, true}};
  t.logprobs = {-0.5f, -0.25f, -1.0f};
  return t;
}

TEST(FirstDifferenceTest, IsEmptyForEqualRecords) {
  EXPECT_EQ(FirstDifference(Record(), Record()), "");
}

TEST(FirstDifferenceTest, NamesTheFirstTokenThatDiffers) {
  Trajectory other = Record();
  other.tokens[3] = 11;
  other.tokens[4] = 12;
  EXPECT_EQ(FirstDifference(Record(), other), "position 3: token 9, replayed 11");
}

TEST(FirstDifferenceTest, NamesWhereTheShorterOneEnds) {
  Trajectory other = Record();
  other.tokens.pop_back();
  EXPECT_EQ(FirstDifference(Record(), other), "position 4: 5 tokens, replayed 4");
}

TEST(FirstDifferenceTest, SeesOneUlpOfALogprob) {
  Trajectory other = Record();
  other.logprobs[1] = std::nextafter(other.logprobs[1], 0.0f);
  std::string difference = FirstDifference(Record(), other);
  EXPECT_EQ(difference.rfind("position 3: logprob -0.25 (0xbe800000)", 0), 0u) << difference;
}

TEST(FirstDifferenceTest, ComparesKeptMassesToo) {
  Trajectory recorded = Record();
  recorded.kept_mass_logprobs = {-0.1f, 0, -0.2f};
  EXPECT_EQ(FirstDifference(recorded, recorded), "");
  EXPECT_EQ(FirstDifference(recorded, Record()), "3 kept-mass logprobs, replayed 0");
  Trajectory other = recorded;
  other.kept_mass_logprobs[1] = -0.0f;
  EXPECT_EQ(FirstDifference(recorded, other).rfind("position 3: kept-mass logprob 0", 0), 0u);
}

TEST(FirstDifferenceTest, ComparesLogprobsByTheirBits) {
  Trajectory a = Record(), b = Record();
  a.logprobs[0] = b.logprobs[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(FirstDifference(a, b), "");
  a.logprobs[0] = 0.0f;
  b.logprobs[0] = -0.0f;
  EXPECT_NE(FirstDifference(a, b), "");
}

}  // namespace
}  // namespace thresher::launch
