#include "actor/tasks/solver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ctime>
#include <map>

#include "actor/tasks/judge.h"
#include "actor/tasks/solve.h"
#include "tests/unit/tasks/naive.h"

namespace thresher::tasks {
namespace {

RandomSequence Random(std::uint64_t seed) {
  return RandomSequence(seed, TrajectoryId{Stream::kTrain, 0, 0, 0}, RandomPurpose::kTask);
}

struct KnownBoard {
  std::int64_t target;
  std::vector<std::int64_t> numbers;
  std::uint64_t solutions;
};
const KnownBoard kKnownBoards[] = {
    {69, {1, 2, 4, 9, 22, 25}, 1309},
    {269, {2, 3, 7, 20, 21, 25}, 331},
    {431, {3, 4, 6, 9, 11, 15}, 56},
};

// CPU time, so that a busy machine does not fail the test.
double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

TEST(DigitsSolver, CountsThePublishedBoardsInUnderATenthOfASecond) {
  for (const KnownBoard& board : kKnownBoards) {
    const double begin = CpuSeconds();
    const auto count = CountSolutions("digits", board.numbers, board.target);
    const double seconds = CpuSeconds() - begin;
    ASSERT_TRUE(count.ok());
    EXPECT_EQ(*count, board.solutions) << "target " << board.target;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    EXPECT_LT(seconds, 2.0);
#else
    EXPECT_LT(seconds, 0.1);
#endif
  }
}

TEST(DigitsSolver, ListsEachSolutionOnceAndTheVerifierAcceptsIt) {
  const Rules rules = *RulesFor("digits", false);
  for (const KnownBoard& board : kKnownBoards) {
    const auto list = ListSolutions("digits", board.numbers, board.target, SIZE_MAX);
    ASSERT_TRUE(list.ok());
    EXPECT_EQ(list->size(), board.solutions);
    EXPECT_EQ(std::set<std::string>(list->begin(), list->end()).size(), board.solutions);
    for (const std::string& text : *list) {
      EXPECT_EQ(JudgeSteps(board.numbers, board.target, rules, text).reason, "solved") << text;
    }
  }
}

// Every number of a text in turn replaced by every value of `values`.
void ForEachChangedNumber(const std::string& text, const std::vector<std::int64_t>& values,
                          const std::function<void(const std::string&)>& visit) {
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    if (!std::isdigit(text[begin]) || (begin > 0 && std::isdigit(text[begin - 1]))) continue;
    std::size_t end = begin;
    while (std::isdigit(text[end])) ++end;
    for (const std::int64_t value : values) {
      visit(text.substr(0, begin) + std::to_string(value) + text.substr(end));
    }
  }
}

TEST(DigitsSolver, EveryChangeOfOneNumberIsJudgedAsTheNaiveJudgeDoes) {
  const Rules rules = *RulesFor("digits", false);
  for (const KnownBoard& board : kKnownBoards) {
    const naive::Numbers numbers(board.numbers.begin(), board.numbers.end());
    std::vector<std::int64_t> values = board.numbers;
    for (std::int64_t v : {0, 5, 8, 13, 18, 44, 100, 999}) values.push_back(v);
    values.push_back(board.target);
    const auto list = *ListSolutions("digits", board.numbers, board.target, SIZE_MAX);
    for (std::size_t i = 0; i < list.size(); i += 7) {
      ForEachChangedNumber(list[i], values, [&](const std::string& changed) {
        const Verdict verdict = JudgeSteps(board.numbers, board.target, rules, changed);
        EXPECT_EQ(verdict.score == 1, naive::IsRight(numbers, board.target, false, changed))
            << changed << ": " << verdict.reason;
        EXPECT_EQ(verdict.kind, OutcomeKind::kScored) << changed;
      });
    }
  }
}

TEST(DigitsSolver, AChangeThatStaysValidIsAccepted) {
  const Rules rules = *RulesFor("digits", false);
  const std::vector<std::int64_t> numbers = {3, 3, 5, 4, 7, 2};
  for (const char* text : {"3-3=0,5*0=0,7+2=9;", "3-3=0,4*0=0,7+2=9;"}) {
    EXPECT_EQ(JudgeSteps(numbers, 9, rules, text).score, 1) << text;
  }
  EXPECT_EQ(JudgeSteps(numbers, 9, rules, "3-3=0,6*0=0,7+2=9;").reason, "unknown_number");
}

TEST(StepSolver, AgreesWithANaiveEnumeratorOnRandomBoards) {
  RandomSequence random = Random(11);
  int solvable = 0;
  for (int round = 0; round < 400; ++round) {
    const int size = round % 20 == 0 ? 5 : 2 + round % 3;
    std::vector<std::int64_t> numbers;
    // Small numbers on purpose: zeros, ones and equal values are where conventions differ.
    for (int i = 0; i < size; ++i) numbers.push_back(random.Between(1, round % 2 ? 5 : 12));
    const std::int64_t target = random.Between(0, 30);
    const naive::Numbers plain(numbers.begin(), numbers.end());
    for (const Rules rules : {Rules{true, true}, Rules{false, true}, Rules{false, false}}) {
      const auto expected =
          naive::Solutions(plain, target, rules.use_all, rules.count_identity_steps);
      StepSolver solver(rules, target);
      std::set<std::string> listed;
      solver.List(Board(numbers), [&](std::span<const Step> steps) {
        EXPECT_TRUE(listed.insert(FormatSteps(steps)).second) << "listed twice";
        return true;
      });
      const SolutionCounts counts = solver.Count(Board(numbers));
      EXPECT_EQ(TotalOf(counts), expected.size());
      EXPECT_EQ(listed, expected);
      for (std::size_t k = 0; k < counts.size(); ++k) {
        EXPECT_EQ(counts[k], std::count_if(expected.begin(), expected.end(), [&](const auto& text) {
                    return std::count(text.begin(), text.end(), '=') == static_cast<long>(k) + 1;
                  }));
      }
      solvable += !expected.empty();
    }
  }
  EXPECT_GT(solvable, 300);  // or the comparison means little
}

TEST(StepSolver, SamplesUniformlyOverSolutions) {
  const Rules rules = *RulesFor("digits", false);
  const std::vector<std::int64_t> numbers = {2, 3, 4, 6};
  StepSolver solver(rules, 24);
  const auto solutions = naive::Solutions({2, 3, 4, 6}, 24, false, false);
  ASSERT_GT(solutions.size(), 10u);
  RandomSequence random = Random(5);
  std::map<std::string, int> seen;
  const int draws = 400 * static_cast<int>(solutions.size());
  for (int i = 0; i < draws; ++i) ++seen[FormatSteps(solver.Sample(Board(numbers), false, random))];
  ASSERT_EQ(seen.size(), solutions.size());
  double chi_square = 0;
  for (const auto& [text, count] : seen) {
    EXPECT_TRUE(solutions.contains(text)) << text;
    chi_square += (count - 400.0) * (count - 400.0) / 400.0;
  }
  // Mean k - 1 and variance 2 (k - 1): five standard deviations.
  const double freedom = static_cast<double>(solutions.size()) - 1;
  EXPECT_LT(chi_square, freedom + 5 * std::sqrt(2 * freedom));
}

TEST(StepSolver, SamplesOnlyTheShortestWhenAsked) {
  StepSolver solver(*RulesFor("digits", false), 24);
  const std::vector<std::int64_t> numbers = {2, 3, 4, 6};
  RandomSequence random = Random(6);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(FormatSteps(solver.Sample(Board(numbers), true, random)), "6*4=24;");
  }
}

TEST(Solve, StopsAtTheLimit) {
  const std::vector<std::int64_t> numbers = {1, 2, 4, 9, 22, 25};
  EXPECT_EQ(ListSolutions("digits", numbers, 69, 10)->size(), 10u);
  EXPECT_EQ(ListSolutions("digits", numbers, 69, 0)->size(), 0u);
}

TEST(Solve, CountdownUsesAllNumbers) {
  const std::vector<std::int64_t> numbers = {3, 7, 9};
  const auto list = ListSolutions("countdown", numbers, 60, SIZE_MAX);
  for (const std::string& text : *list) {
    EXPECT_EQ(std::count(text.begin(), text.end(), '='), 2) << text;
  }
  EXPECT_EQ(*CountSolutions("countdown", numbers, 60),
            naive::Solutions({3, 7, 9}, 60, true, true).size());
  EXPECT_EQ(*CountSolutions("countdown", numbers, 63), 0u);  // 9*7 leaves the 3 over
}

TEST(Solve, NamesWhatIsWrongWithTheInput) {
  const auto message = [](std::string_view task, std::vector<std::int64_t> numbers,
                          std::int64_t target) {
    const auto result = CountSolutions(task, numbers, target);
    const auto listed = ListSolutions(task, numbers, target, 1);
    EXPECT_FALSE(result.ok());
    EXPECT_EQ(result.status().ToString(), listed.status().ToString());
    return result.status().message();
  };
  EXPECT_EQ(message("sudoku", {1, 2}, 3), "unknown task 'sudoku'; allowed: countdown, digits");
  EXPECT_EQ(message("digits", {1}, 3), "1 numbers given; allowed: 2..6");
  EXPECT_EQ(message("digits", {1, 2, 3, 4, 5, 6, 7}, 3), "7 numbers given; allowed: 2..6");
  EXPECT_EQ(message("digits", {0, 2}, 3), "number 0; allowed: 1..1000");
  EXPECT_EQ(message("digits", {1, 1001}, 3), "number 1001; allowed: 1..1000");
  EXPECT_EQ(message("digits", {1, 2}, 0), "target 0; allowed: 1..1000000");
  EXPECT_EQ(message("digits", {1, 2}, 1000001), "target 1000001; allowed: 1..1000000");
}

}  // namespace
}  // namespace thresher::tasks
