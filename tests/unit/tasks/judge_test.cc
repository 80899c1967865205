#include "actor/tasks/judge.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "actor/tasks/play.h"
#include "actor/tasks/solver.h"
#include "tests/unit/tasks/naive.h"

namespace thresher::tasks {
namespace {

constexpr Rules kUseAll{.use_all = true};
constexpr Rules kMayLeave{.use_all = false, .count_identity_steps = false};

struct Case {
  std::string text;
  std::string reason;
};

// 3 7 9 = 60 by 9*7=63, 63-3=60.
const std::vector<std::int64_t> kNumbers = {3, 7, 9};
constexpr std::int64_t kTarget = 60;

void ExpectReasons(const std::vector<Case>& cases, OutcomeKind kind) {
  for (const Case& c : cases) {
    const Verdict verdict = JudgeSteps(kNumbers, kTarget, kUseAll, c.text);
    EXPECT_EQ(verdict.reason, c.reason) << "'" << c.text << "' " << verdict.detail;
    EXPECT_EQ(verdict.kind, kind) << c.text;
    EXPECT_EQ(verdict.score, 0) << c.text;
  }
}

TEST(JudgeSteps, AcceptsRightAnswersInAnyOperandOrder) {
  for (const char* text : {"9*7=63,63-3=60;", "7*9=63,63-3=60;"}) {
    const Verdict verdict = JudgeSteps(kNumbers, kTarget, kUseAll, text);
    EXPECT_EQ(verdict.reason, "solved");
    EXPECT_EQ(verdict.kind, OutcomeKind::kScored);
    EXPECT_EQ(verdict.score, 1);
    EXPECT_EQ(verdict.parsed, text);
    for (const auto& [name, value] : verdict.subscores) EXPECT_EQ(value, 1) << name;
  }
}

TEST(JudgeSteps, SaysWhatIsWrongWithALegalLookingAnswer) {
  ExpectReasons(
      {
          {"9*8=72,72-3=69;", "unknown_number"},
          {"60+0=60;", "unknown_number"},
          {"9*9=81;", "reused_number"},
          {"9*7=63,63-3=60,63-3=60;", "reused_number"},
          {"9*7=63,7-3=4;", "reused_number"},
          {"3-7=4,9*4=36;", "negative"},
          {"9/7=1,3+1=4;", "not_integer"},
          {"9*7=62,62-3=59;", "wrong_arithmetic"},
          {"9*7=63,63-3=59;", "wrong_arithmetic"},
          {"9+7=16,16+3=19;", "wrong_target"},
          {"9*7=63;", "wrong_target"},
      },
      OutcomeKind::kScored);
  const std::vector<std::int64_t> four = {3, 3, 6, 9};
  EXPECT_EQ(JudgeSteps(four, 15, kUseAll, "9+6=15;").reason, "unused_number");
  EXPECT_EQ(JudgeSteps(four, 15, kUseAll, "3-3=0,9/0=0;").reason, "division_by_zero");
  EXPECT_EQ(JudgeSteps(four, 15, kUseAll, "3-3=0,9+6=15,15+0=15;").reason, "solved");
  EXPECT_EQ(JudgeSteps(four, 15, kMayLeave, "9+6=15;").reason, "solved");
  EXPECT_EQ(JudgeSteps(four, 15, kMayLeave, "9+6=15,15+3=18;").reason, "step_after_target");
}

TEST(JudgeSteps, KnownCheatsAreNotInTheLanguage) {
  ExpectReasons(
      {
          {"", "not_parsed"},
          {";", "not_parsed"},
          {",;", "not_parsed"},
          {"60;", "not_parsed"},                       // the target echoed
          {"3 7 9=60:9*7=63,63-3=60;", "not_parsed"},  // the prompt echoed
          {"60=60;", "not_parsed"},
          {"9*7-3=60;", "not_parsed"},  // an expression
          {"(9*7)-3=60;", "not_parsed"},
          {"9**7=63,63-3=60;", "not_parsed"},
          {"9//7=1,1+3=4;", "not_parsed"},
          {"9%7=2;", "not_parsed"},
          {"9^7=63;", "not_parsed"},
          {"-9*7=63;", "not_parsed"},
          {"+9*7=63;", "not_parsed"},
          {"9*-7=63;", "not_parsed"},
          {"9--7=16;", "not_parsed"},
          {"3-7=-4,9-4=5;", "not_parsed"},
          {"9*7=63=63,63-3=60;", "not_parsed"},
          {"9*7=63-3=60;", "not_parsed"},  // 1=2=3
          {"9*7==63,63-3=60;", "not_parsed"},
          {"9.0*7=63,63-3=60;", "not_parsed"},
          {"9e0*7=63,63-3=60;", "not_parsed"},
          {"0x9*7=63,63-3=60;", "not_parsed"},
          {"09*7=63,63-3=60;", "not_parsed"},
          {"9*7=063,63-3=60;", "not_parsed"},
          {"9*7=63,63-3=60.;", "not_parsed"},
          {" 9*7=63,63-3=60;", "not_parsed"},
          {"9 * 7=63,63-3=60;", "not_parsed"},
          {"9*7=63, 63-3=60;", "not_parsed"},
          {"9*7=63,\n63-3=60;", "not_parsed"},
          {"9*7=63,63-3=6 0;", "not_parsed"},
          {"9*7=63,,63-3=60;", "not_parsed"},
          {"9*7=63,63-3=60,;", "not_parsed"},
          {"9*7=,63-3=60;", "not_parsed"},
          {"*7=63;", "not_parsed"},
          {"a*b=60;", "not_parsed"},
          {"9x7=63,63-3=60;", "not_parsed"},
          {"9\xc3\x97"
           "7=63,63-3=60;",
           "not_parsed"},  // multiplication sign
          {"9*7=63,63\xe2\x88\x92"
           "3=60;",
           "not_parsed"},                                // minus sign
          {"\xef\xbc\x99*7=63,63-3=60;", "not_parsed"},  // full-width nine
          {"\xef\xbb\xbf"
           "9*7=63,63-3=60;",
           "not_parsed"},  // byte order mark
          {std::string("9*7=63\0,63-3=60;", 16), "not_parsed"},
          {"9*7=63,63-3=60", "unterminated"},
          {"9*7=63,63-", "unterminated"},
          {"9", "unterminated"},
          {"9*7=63,63-3=60;;", "trailing_text"},
          {"9*7=63,63-3=60; ", "trailing_text"},
          {"9*7=63,63-3=60;\n", "trailing_text"},
          {std::string("9*7=63,63-3=60;\0", 16), "trailing_text"},
          {"9*7=63,63-3=60;9+7=16;", "trailing_text"},  // hedged
          {"9+7=16;9*7=63,63-3=60;", "trailing_text"},
          {"9*7=63,63-3=60;or 61", "trailing_text"},
          {"99999999999999999999999999*7=63;", "overflow"},
          {"9*7=1000000000000000001;", "overflow"},
          {"9*7=18446744073709551679,63-3=60;", "overflow"},  // 63 modulo 2^64
          {"9*" + std::string(100000, '9') + "=1;", "overflow"},
      },
      OutcomeKind::kUnparsable);
}

TEST(JudgeSteps, LooksAtNoMoreThanItsBound) {
  std::string steps;
  while (steps.size() < 100000) steps += "9*7=63,";
  EXPECT_EQ(JudgeSteps(kNumbers, kTarget, kUseAll, steps).reason, "too_long");
  EXPECT_EQ(JudgeSteps(kNumbers, kTarget, kUseAll, steps + ";").reason, "too_long");
  const std::string flood(10'000'000, 'x');
  EXPECT_EQ(JudgeSteps(kNumbers, kTarget, kUseAll, "9*7=63,63-3=60;" + flood).reason,
            "trailing_text");
}

TEST(JudgeSteps, ValuesBeyondTheBoundAreOverflowNotWrapAround) {
  const std::vector<std::int64_t> huge = {kMaxValue, kMaxValue};
  const std::string a = std::to_string(kMaxValue);
  EXPECT_EQ(JudgeSteps(huge, 1, kUseAll, a + "*" + a + "=1;").reason, "overflow");
  EXPECT_EQ(JudgeSteps(huge, 1, kUseAll, a + "+" + a + "=1;").reason, "overflow");
  EXPECT_EQ(JudgeSteps(huge, 1, kUseAll, a + "/" + a + "=1;").reason, "solved");
}

TEST(JudgeSteps, SubScoresTellLanguageRulesAndAnswerApart) {
  const auto scores = [](const char* text) {
    std::string line;
    for (const auto& [name, value] : JudgeSteps(kNumbers, kTarget, kUseAll, text).subscores) {
      line += name + (value == 1 ? "=1 " : "=0 ");
    }
    return line;
  };
  EXPECT_EQ(scores("9*7=63,63-3=60;"), "well_formed=1 legal=1 solved=1 ");
  EXPECT_EQ(scores("9+7=16,16+3=19;"), "well_formed=1 legal=1 solved=0 ");
  EXPECT_EQ(scores("9*7=60;"), "well_formed=1 legal=0 solved=0 ");
  EXPECT_EQ(scores("9*7"), "well_formed=0 legal=0 solved=0 ");
  EXPECT_EQ(JudgeSteps(kNumbers, kTarget, kUseAll, "9*7=63,63-").parsed, "9*7=63");
}

std::string RandomBytes(RandomSequence& random, std::string_view set) {
  std::string text(random.Below(40), '\0');
  for (char& c : text) {
    c = set.empty() ? static_cast<char>(random.Below(256)) : set[random.Below(set.size())];
  }
  return text;
}

void ExpectAgreement(const std::vector<std::int64_t>& numbers, std::int64_t target,
                     const Rules& rules, const std::string& text, int& right) {
  const Verdict verdict = JudgeSteps(numbers, target, rules, text);
  const naive::Numbers plain(numbers.begin(), numbers.end());
  const bool expected = naive::IsRight(plain, target, rules.use_all, text);
  ASSERT_EQ(verdict.score, expected ? 1 : 0) << text << " " << verdict.reason;
  ASSERT_EQ(verdict.reason == "solved", expected) << text;
  right += expected;
}

TEST(JudgeSteps, FuzzedAnswersAreRightOnlyWhenTheNaiveJudgeSaysSo) {
  RandomSequence random(21, TrajectoryId{}, RandomPurpose::kPerturb);
  int right = 0, total = 0;
  for (int round = 0; round < 3000; ++round) {
    const Rules rules = round % 2 ? kUseAll : kMayLeave;
    std::vector<std::int64_t> numbers;
    const int size = 2 + round % 4;
    for (int i = 0; i < size; ++i) numbers.push_back(random.Between(1, 9));
    const auto game = PlaySteps(Board(numbers), size - 1, true, random);
    const std::int64_t target = game.back().result;
    std::string text = FormatSteps(game);
    ExpectAgreement(numbers, target, rules, text, right);
    for (int change = 0; change < 12; ++change) {
      std::string changed = text;
      for (std::uint64_t i = 0; i <= random.Below(3); ++i) changed = Mutate(changed, random);
      ExpectAgreement(numbers, target, rules, changed, right);
      ++total;
    }
    ExpectAgreement(numbers, target, rules, RandomBytes(random, ""), right);
    ExpectAgreement(numbers, target, rules, RandomBytes(random, "0123456789+-*/=,;"), right);
  }
  EXPECT_GT(right, 2500);
  EXPECT_GT(total, right);
}

}  // namespace
}  // namespace thresher::tasks
