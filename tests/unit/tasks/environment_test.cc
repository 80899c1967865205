#include "actor/tasks/environment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "actor/tasks/judge.h"
#include "actor/tasks/solve.h"
#include "tests/unit/tasks/naive.h"

namespace thresher::tasks {
namespace {

std::unique_ptr<Environment> Make(const TaskOptions& options) {
  auto made = MakeEnvironment(options);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  return std::move(made).value();
}

TaskOptions Countdown(int numbers) {
  TaskOptions options = DefaultTaskOptions("countdown");
  options.numbers = numbers;
  options.heldout_fraction = 0.25;
  return options;
}

// The shapes that every test of the contract runs over.
std::vector<TaskOptions> Shapes() {
  std::vector<TaskOptions> shapes = {Countdown(2), Countdown(3), Countdown(4),
                                     DefaultTaskOptions("digits")};
  shapes.push_back(Countdown(4));
  shapes.back().use_all = false;
  shapes.push_back(Countdown(3));
  shapes.back().trace_style = "shortest";
  shapes.push_back(DefaultTaskOptions("digits"));
  shapes.back().numbers = 4;
  shapes.back().trace_style = "shortest";
  shapes.push_back(DefaultTaskOptions("digits"));
  shapes.back().numbers = 2;
  shapes.back().min_target = 2;
  return shapes;
}

RandomSequence Random(const Item& item, RandomPurpose purpose, std::uint32_t sample = 0) {
  return RandomSequence(3, TrajectoryId{item.stream, 0, item.index, sample}, purpose);
}

bool IsLegal(const Verdict& verdict) {
  for (const auto& [name, value] : verdict.subscores) {
    if (name == "legal") return value == 1;
  }
  return false;
}

void ExpectWithin(const std::string& text, int bound, const std::string& alphabet) {
  EXPECT_LE(static_cast<int>(text.size()), bound) << text;
  EXPECT_EQ(text.find_first_not_of(alphabet), std::string::npos) << text;
}

TEST(Environment, ItemsAreWithinTheOptionsAndSolvable) {
  for (const TaskOptions& options : Shapes()) {
    const auto environment = Make(options);
    EXPECT_EQ(environment->name(), options.name);
    for (std::uint64_t i = 0; i < 200; ++i) {
      const Item item = environment->Generate(1, i % 2 ? Stream::kEval : Stream::kTrain, i);
      EXPECT_EQ(item.index, i);
      EXPECT_EQ(item.numbers.size(), static_cast<std::size_t>(options.numbers));
      for (const auto number : item.numbers) EXPECT_TRUE(number >= 1);
      for (const auto number : item.numbers) EXPECT_TRUE(number <= options.max_number);
      EXPECT_TRUE(item.target >= options.min_target && item.target <= options.max_target);
      ExpectWithin(item.prompt, environment->MaxPromptChars(), environment->alphabet());
      if (options.numbers > 4) continue;  // the naive enumerator takes seconds
      const naive::Numbers plain(item.numbers.begin(), item.numbers.end());
      EXPECT_FALSE(naive::Solutions(plain, item.target, options.use_all, true).empty())
          << item.prompt;
    }
  }
}

TEST(Environment, PromptShowsTheNumbersAsDrawnAndTheTarget) {
  const auto environment = Make(Countdown(3));
  const Item item = environment->Generate(1, Stream::kTrain, 0);
  EXPECT_EQ(item.prompt, std::to_string(item.numbers[0]) + " " + std::to_string(item.numbers[1]) +
                             " " + std::to_string(item.numbers[2]) + "=" +
                             std::to_string(item.target) + ":");
}

TEST(Environment, ReferencesAreRightAndPerturbedOnesAreNot) {
  for (const TaskOptions& options : Shapes()) {
    const auto environment = Make(options);
    const int items = options.numbers > 4 ? 40 : 300;
    for (int i = 0; i < items; ++i) {
      const Item item = environment->Generate(1, Stream::kSupervised, i);
      RandomSequence reference = Random(item, RandomPurpose::kReference);
      const std::string trace = environment->Reference(item, reference);
      EXPECT_EQ(environment->Verify(item, trace).score, 1) << item.prompt << trace;
      ExpectWithin(trace, environment->MaxTraceChars(), environment->alphabet());
      RandomSequence perturb = Random(item, RandomPurpose::kPerturb);
      const std::string wrong = environment->Perturb(item, perturb);
      const Verdict verdict = environment->Verify(item, wrong);
      EXPECT_LT(verdict.score, 1) << item.prompt << wrong;
      const naive::Numbers plain(item.numbers.begin(), item.numbers.end());
      EXPECT_FALSE(naive::IsRight(plain, item.target, options.use_all, wrong));
      EXPECT_EQ(wrong.find_first_not_of(environment->alphabet()), std::string::npos);
    }
  }
}

TEST(Environment, OffTargetGamesAreLegalCompleteAndAimElsewhere) {
  for (const TaskOptions& options : Shapes()) {
    const auto environment = Make(options);
    int in_range = 0;
    for (std::uint64_t i = 0; i < 300; ++i) {
      const Item item = environment->Generate(1, Stream::kSupervised, i);
      RandomSequence random = Random(item, RandomPurpose::kReference);
      const std::string game = environment->OffTarget(item, random);
      const Verdict verdict = environment->Verify(item, game);
      EXPECT_EQ(verdict.reason, "wrong_target") << item.prompt << game;
      EXPECT_TRUE(IsLegal(verdict));
      ExpectWithin(game, environment->MaxTraceChars(), environment->alphabet());
      // The same game is a right answer to its own target.
      Item other = item;
      other.target = std::stoll(game.substr(game.rfind('=') + 1));
      if (other.target < options.min_target || other.target > options.max_target) continue;
      ++in_range;
      EXPECT_EQ(environment->Verify(other, game).score, 1) << other.target << ' ' << game;
    }
    // Two numbers have few results; else another target in the range is nearly always found.
    EXPECT_GT(in_range, options.numbers > 2 ? 290 : 30) << options.name << options.numbers;
  }
}

// The chance that the random player wins, by following all of its games.
double WinChance(const naive::Numbers& board, long long target, bool use_all) {
  std::map<std::tuple<char, long long, long long>, naive::Numbers> turns;
  for (std::size_t i = 0; i < board.size(); ++i) {
    for (std::size_t j = 0; j < board.size(); ++j) {
      const long long a = board[i], b = board[j];
      naive::Numbers rest;
      for (std::size_t k = 0; k < board.size(); ++k) {
        if (k != i && k != j) rest.push_back(board[k]);
      }
      const auto add = [&](char op, long long result) {
        naive::Numbers next = rest;
        next.push_back(result);
        turns[{op, a, b}] = next;
      };
      if (i == j) continue;
      if (a >= b) add('+', a + b);
      if (a >= b) add('*', a * b);
      if (a >= b) add('-', a - b);
      if (b > 0 && a % b == 0) add('/', a / b);
    }
  }
  double chance = 0;
  for (const auto& [turn, next] : turns) {
    if (next.back() == target && (!use_all || next.size() == 1)) {
      chance += 1;
    } else if (next.size() > 1) {
      chance += WinChance(next, target, use_all);
    }
  }
  return chance / static_cast<double>(turns.size());
}

struct Floor {
  double measured = 0;
  double exact = 0;
  double error = 0;  // standard error of `measured`
};

Floor MeasureRandomPlayer(const TaskOptions& options, int items, int games) {
  const auto environment = Make(options);
  Floor floor;
  double variance = 0;
  for (int i = 0; i < items; ++i) {
    const Item item = environment->Generate(1, Stream::kTrain, i);
    const naive::Numbers plain(item.numbers.begin(), item.numbers.end());
    const double chance = WinChance(plain, item.target, options.use_all);
    floor.exact += chance / items;
    variance += chance * (1 - chance) * games;
    for (int g = 0; g < games; ++g) {
      RandomSequence random = Random(item, RandomPurpose::kRandomPlay, g);
      const Verdict verdict = environment->Verify(item, environment->RandomPolicy(item, random));
      EXPECT_TRUE(IsLegal(verdict)) << verdict.reason << ' ' << verdict.parsed;
      floor.measured += verdict.score / (items * games);
    }
  }
  floor.error = std::sqrt(variance) / (items * games);
  return floor;
}

TEST(RandomPolicy, WinsAsOftenAsUniformLegalPlayDoes) {
  const double published[] = {0.33, 0.11, 0.05};  // by count of numbers, from 2
  for (int numbers = 2; numbers <= 4; ++numbers) {
    const Floor floor = MeasureRandomPlayer(Countdown(numbers), 1500, numbers < 4 ? 10 : 6);
    EXPECT_NEAR(floor.measured, floor.exact, 4 * floor.error) << numbers;
    // The train split is a sample of instances: a share of the figure is left to that.
    EXPECT_NEAR(floor.measured, published[numbers - 2], 0.15 * published[numbers - 2]) << numbers;
  }
  TaskOptions digits = DefaultTaskOptions("digits");
  digits.numbers = 4;
  const Floor floor = MeasureRandomPlayer(digits, 300, 30);
  EXPECT_NEAR(floor.measured, floor.exact, 4 * floor.error);
}

TEST(Generate, IsAPureFunctionOfSeedStreamAndIndex) {
  const auto one = Make(Countdown(3));
  const auto two = Make(Countdown(3));
  std::set<std::string> by_seed, by_stream, by_index;
  std::vector<std::string> other_thread(50);
  std::jthread worker([&] {
    for (int i = 49; i >= 0; --i) other_thread[i] = two->Generate(7, Stream::kTrain, i).prompt;
  });
  for (std::uint64_t i = 0; i < 50; ++i) {
    by_index.insert(one->Generate(7, Stream::kTrain, i).prompt);
    by_seed.insert(one->Generate(i, Stream::kTrain, 0).prompt);
    by_stream.insert(one->Generate(7, Stream::kSupervised, i).prompt);
  }
  worker.join();
  for (std::uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(one->Generate(7, Stream::kTrain, i).prompt, other_thread[i]);
  }
  EXPECT_GT(by_index.size(), 40u);
  EXPECT_GT(by_seed.size(), 40u);
  EXPECT_NE(by_index, by_stream);
}

TEST(Generate, HeldOutInstancesAreNeverTrainedOnWhateverTheSeed) {
  for (const TaskOptions& options : {Countdown(3), DefaultTaskOptions("digits")}) {
    const auto environment = Make(options);
    std::set<std::string> train, heldout;
    for (std::uint64_t i = 0; i < 4000; ++i) {
      for (const Stream stream : {Stream::kTrain, Stream::kSupervised, Stream::kBranch}) {
        train.insert(environment->Generate(i % 5, stream, i).canonical);
      }
      heldout.insert(environment->Generate(i % 7, Stream::kEval, i).canonical);
    }
    for (const std::string& canonical : heldout) EXPECT_FALSE(train.contains(canonical));
    EXPECT_GT(heldout.size(), 200u);
  }
}

TEST(Generate, HeldOutShareIsTheOneAskedFor) {
  // A wide task, so that nearly every draw is a new instance.
  TaskOptions options = DefaultTaskOptions("digits");
  options.max_number = 100;
  options.max_target = 10000;
  for (const double fraction : {0.05, 0.5}) {
    options.heldout_fraction = fraction;
    const auto narrow = Make(options);
    options.heldout_fraction = 0.9;
    const auto wide = Make(options);
    std::set<std::string> of_narrow;
    int kept = 0;
    for (std::uint64_t i = 0; i < 400; ++i) {
      const std::string first = narrow->Generate(2, Stream::kEval, i).canonical;
      kept += first == wide->Generate(2, Stream::kEval, i).canonical;
    }
    // Both take the first of the same draws that lies in their held-out split; the narrow split is
    // part of the wide one, so the draws are the same with chance fraction / 0.9.
    const double share = fraction / 0.9;
    EXPECT_NEAR(kept / 400.0, share, 4 * std::sqrt(share * (1 - share) / 400)) << fraction;
  }
}

TEST(Generate, CanonicalFormIgnoresTheOrderOfTheNumbers) {
  const auto environment = Make(Countdown(3));
  std::map<std::string, std::set<std::string>> prompts;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const Item item = environment->Generate(1, Stream::kTrain, i);
    std::vector<std::int64_t> sorted = item.numbers;
    std::sort(sorted.begin(), sorted.end());
    std::string expected = "countdown";
    for (const auto number : sorted) expected += " " + std::to_string(number);
    EXPECT_EQ(item.canonical, expected + "=" + std::to_string(item.target));
    prompts[item.canonical].insert(item.prompt);
  }
  EXPECT_TRUE(std::any_of(prompts.begin(), prompts.end(),
                          [](const auto& entry) { return entry.second.size() > 1; }));
}

TEST(Generate, KeepsTheWindowOfSolutions) {
  TaskOptions options = Countdown(3);
  options.min_solutions = 3;
  options.max_solutions = 5;
  const auto environment = Make(options);
  for (std::uint64_t i = 0; i < 200; ++i) {
    const Item item = environment->Generate(1, Stream::kTrain, i);
    const std::uint64_t count = *CountSolutions("countdown", item.numbers, item.target);
    EXPECT_TRUE(count >= 3 && count <= 5) << item.prompt << count;
  }
}

TEST(Reference, ShortestTracesAreNoLongerThanAny) {
  TaskOptions options = DefaultTaskOptions("digits");
  options.numbers = 5;
  const auto any = Make(options);
  options.trace_style = "shortest";
  const auto shortest = Make(options);
  std::size_t saved = 0;
  for (std::uint64_t i = 0; i < 50; ++i) {
    const Item item = any->Generate(1, Stream::kTrain, i);
    RandomSequence one = Random(item, RandomPurpose::kReference);
    RandomSequence two = Random(item, RandomPurpose::kReference);
    const std::string long_trace = any->Reference(item, one);
    const std::string short_trace = shortest->Reference(item, two);
    const auto steps = [](const std::string& s) { return std::count(s.begin(), s.end(), '='); };
    EXPECT_LE(steps(short_trace), steps(long_trace));
    saved += steps(long_trace) - steps(short_trace);
  }
  EXPECT_GT(saved, 0u);
}

TEST(TraceBound, HoldsForTheLargestGamesAndFitsTheVerifier) {
  TaskOptions options = DefaultTaskOptions("digits");
  options.max_number = kMaxGivenNumber;
  options.max_target = kMaxTarget;
  const auto environment = Make(options);
  EXPECT_LE(environment->MaxTraceChars(), static_cast<int>(kMaxAnswerChars));
  Item item;
  item.numbers = {1000, 1000, 1000, 1000, 1000, 1000};
  item.target = 1;
  const std::string longest =
      "1000*1000=1000000,1000000*1000=1000000000,1000000000*1000=1000000000000,"
      "1000000000000*1000=1000000000000000,1000000000000000*1000=1000000000000000000;";
  EXPECT_EQ(environment->Verify(item, longest).reason, "wrong_target");
  EXPECT_LE(static_cast<int>(longest.size()), environment->MaxTraceChars());
}

TEST(MakeEnvironment, NamesTheKeyTheValueAndWhatIsAllowed) {
  const auto error = [](const auto& change) {
    TaskOptions options;
    change(options);
    const auto made = MakeEnvironment(options);
    return made.ok() ? std::string("made") : made.status().message();
  };
  using O = TaskOptions;
  EXPECT_EQ(error([](O& o) { o.name = "chess"; }),
            "task.name is 'chess'; allowed: countdown, digits");
  EXPECT_EQ(error([](O& o) { o.numbers = 7; }), "task.difficulty.numbers is 7; allowed: 2..6");
  EXPECT_EQ(error([](O& o) { o.numbers = 1; }), "task.difficulty.numbers is 1; allowed: 2..6");
  EXPECT_EQ(error([](O& o) { o.max_number = 0; }),
            "task.difficulty.max_number is 0; allowed: 1..1000");
  EXPECT_EQ(error([](O& o) { o.min_target = 51; }),
            "task.difficulty.min_target is 51; allowed: 1..50");
  EXPECT_EQ(error([](O& o) { o.max_target = 2000000; }),
            "task.difficulty.max_target is 2000000; allowed: 1..1000000");
  EXPECT_EQ(error([](O& o) { o.name = "digits"; }),
            "task.difficulty.use_all is true; allowed: false for digits (numbers may stay unused)");
  EXPECT_EQ(error([](O& o) { o.heldout_fraction = 1; }),
            "task.heldout_fraction is 1.000000; allowed: between 0 and 1, both excluded");
  EXPECT_NE(error([](O& o) { o.heldout_fraction = std::nan(""); }), "made");
  EXPECT_EQ(error([](O& o) { o.trace_style = "long"; }),
            "task.trace_style is 'long'; allowed: any, shortest");
  EXPECT_EQ(error([](O& o) { o.min_solutions = 0; }),
            "task.difficulty.min_solutions is 0; allowed: 1 or more");
  EXPECT_NE(error([](O& o) { o.max_solutions = 2, o.min_solutions = 3; }), "made");
}

TEST(MakeEnvironment, RefusesOptionsThatLeaveASplitEmpty) {
  TaskOptions few = Countdown(2);
  few.max_number = 1;
  few.min_target = few.max_target = 2;  // one instance: it is in one split
  const auto made = MakeEnvironment(few);
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.status().message().find("split: 0 of 16384"), std::string::npos)
      << made.status().message();
  TaskOptions nothing_held_out = Countdown(3);
  nothing_held_out.heldout_fraction = 1e-9;
  EXPECT_FALSE(MakeEnvironment(nothing_held_out).ok());
  TaskOptions unreachable = Countdown(2);
  unreachable.min_target = unreachable.max_target = 1000;
  EXPECT_FALSE(MakeEnvironment(unreachable).ok());
  TaskOptions window = DefaultTaskOptions("digits");
  window.min_solutions = 1'000'000'000;
  EXPECT_FALSE(MakeEnvironment(window).ok());
}

}  // namespace
}  // namespace thresher::tasks
