#include "launch/evaluation.h"

#include <gtest/gtest.h>

namespace thresher::launch {
namespace {

const Answer kRight{"a", true}, kWrong{"b", false}, kOther{"c", false}, kUnparsed{"", false};

TEST(MajorityTest, TheMostFrequentAnswerDecides) {
  EXPECT_TRUE(MajoritySolves({kWrong, kRight, kRight}));
  EXPECT_FALSE(MajoritySolves({kRight, kWrong, kWrong}));
}

TEST(MajorityTest, TheFirstOfEquallyFrequentAnswersDecides) {
  EXPECT_TRUE(MajoritySolves({kRight, kWrong, kWrong, kRight}));
  EXPECT_FALSE(MajoritySolves({kOther, kRight}));
}

TEST(MajorityTest, UnparsedAnswersDoNotVote) {
  EXPECT_TRUE(MajoritySolves({kUnparsed, kUnparsed, kRight}));
  EXPECT_FALSE(MajoritySolves({kUnparsed, kUnparsed}));
}

TEST(MajorityAtKTest, OfOneIsPassAtOne) {
  std::vector<std::vector<Answer>> items = {{kRight, kWrong, kRight, kUnparsed},
                                            {kWrong, kWrong, kWrong, kWrong}};
  EXPECT_DOUBLE_EQ(MajorityAtK(items, 1).value, 0.25);
}

TEST(MajorityAtKTest, AveragesIndependentVotes) {
  // Two votes of three: right, wrong; the two answers that are left over do not count.
  std::vector<std::vector<Answer>> items = {
      {kRight, kRight, kWrong, kWrong, kOther, kWrong, kRight, kRight}};
  EXPECT_DOUBLE_EQ(MajorityAtK(items, 3).value, 0.5);
}

TEST(EvaluationResultTest, CountsSolvedSamplesOfEachItem) {
  EvaluationResult result;
  result.items = {{kRight, kWrong, kRight}, {kWrong, kWrong, kUnparsed}};
  broker::EvalResult solved = result.Solved();
  EXPECT_EQ(solved.round.samples, 3u);
  EXPECT_EQ(solved.solved, (std::vector<std::uint32_t>{2, 0}));
}

}  // namespace
}  // namespace thresher::launch
