#include "actor/tasks/number_game.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "actor/tasks/judge.h"
#include "actor/tasks/play.h"
#include "actor/tasks/solver.h"
#include "common/base/hash.h"

namespace thresher::tasks {
namespace {

// Draws per item before the split's witness stands in: all lanes of the item.
constexpr int kMaxAttempts = std::numeric_limits<std::uint16_t>::max() + 1;
// A split counts as inhabited when this many instances are found among kProbeDraws draws, of which
// kProbeSolves may be solved (up to 20 ms each). A share of 4 in 16384 leaves a chance near
// exp(-16) that an item needs its witness.
constexpr int kWantedInstances = 4;
constexpr int kProbeDraws = 16384;
constexpr int kProbeSolves = 120;
// Off-target games drawn before one outside the target range is taken.
constexpr int kOffTargetAttempts = 64;
constexpr int kPerturbAttempts = 64;
// Part of what "held-out" means: changing it moves instances between the splits.
constexpr std::string_view kSplitSalt = "thresher.split.v1|";

int DigitsOf(std::int64_t value) { return static_cast<int>(std::to_string(value).size()); }

// The longest trace: over all ways to merge `n` numbers, where a value made of k given numbers is
// at most max(max_number, 2)^k (the product is largest, except that 1+1=2).
int LongestTrace(int n, int max_number) {
  std::vector<int> digits(n + 1), longest(n + 1, 0);
  std::int64_t power = 1;
  for (int k = 1; k <= n; ++k) {
    power *= std::max(max_number, 2);
    digits[k] = DigitsOf(k == 1 ? max_number : power);
  }
  for (int k = 2; k <= n; ++k) {
    for (int i = 1; i < k; ++i) {
      const int step = digits[i] + digits[k - i] + digits[k] + 3;  // operator, '=', ',' or ';'
      longest[k] = std::max(longest[k], longest[i] + longest[k - i] + step);
    }
  }
  return longest[n];
}

// Whether the last result of a game is new: neither given nor an earlier result. A reference for
// that result as target would end there, too.
bool IsFirstSight(const Board& board, std::span<const Step> game) {
  const std::int64_t last = game.back().result;
  const auto same = [&](const Step& step) { return step.result == last; };
  return !board.Contains(last) && std::none_of(game.begin(), game.end() - 1, same);
}

// Whether the target ends the game or, when numbers may stay unused, appears anywhere in it.
bool StopsAt(std::span<const Step> game, std::int64_t target, const Rules& rules) {
  if (rules.use_all) return game.back().result == target;
  const auto hits = [&](const Step& step) { return step.result == target; };
  return std::any_of(game.begin(), game.end(), hits);
}

}  // namespace

NumberGame::NumberGame(const TaskOptions& options, const Rules& rules)
    : options_(options), rules_(rules) {
  max_prompt_chars_ =
      options.numbers * (DigitsOf(options.max_number) + 1) + DigitsOf(options.max_target) + 1;
  max_trace_chars_ = LongestTrace(options.numbers, options.max_number);
}

Result<std::unique_ptr<Environment>> NumberGame::Make(const TaskOptions& options) {
  THRESHER_RETURN_IF_ERROR(ValidateTaskOptions(options));
  THRESHER_ASSIGN_OR_RETURN(const Rules rules, RulesFor(options.name, options.use_all));
  std::unique_ptr<NumberGame> game(new NumberGame(options, rules));
  THRESHER_RETURN_IF_ERROR(game->FindWitnesses());
  return std::unique_ptr<Environment>(std::move(game));
}

const std::string& NumberGame::alphabet() const {
  static const std::string characters = " *+,-/0123456789:;=";
  return characters;
}

std::string NumberGame::Canonical(const Instance& instance) const {
  const Board sorted(instance.numbers);
  std::string text = options_.name;
  for (std::size_t i = 0; i < sorted.size(); ++i) text += ' ' + std::to_string(sorted[i]);
  return text + '=' + std::to_string(instance.target);
}

bool NumberGame::IsHeldOut(std::string_view canonical) const {
  const Hash128 hash = HashText128(std::string(kSplitSalt) + std::string(canonical));
  return static_cast<double>(hash.low & 0xffffffffu) < options_.heldout_fraction * 0x1p32;
}

std::optional<NumberGame::Instance> NumberGame::Draw(RandomSequence& random, bool heldout) const {
  Instance instance;
  for (int i = 0; i < options_.numbers; ++i) {
    instance.numbers.push_back(random.Between(1, options_.max_number));
  }
  const Board board(instance.numbers);
  instance.target = RandomGame(board, random).back().result;
  if (instance.target < options_.min_target || instance.target > options_.max_target) return {};
  if (!rules_.use_all && board.Contains(instance.target)) return {};
  // Solvable: the game, up to the first sight of the target, is a solution.
  if (IsHeldOut(Canonical(instance)) != heldout) return {};
  return instance;
}

bool NumberGame::HasWantedSolutions(const Instance& instance) const {
  if (options_.min_solutions <= 1 && options_.max_solutions == 0) return true;  // see Draw
  StepSolver solver(rules_, instance.target);
  const std::uint64_t count = TotalOf(solver.Count(Board(instance.numbers)));
  return count >= options_.min_solutions &&
         (options_.max_solutions == 0 || count <= options_.max_solutions);
}

Status NumberGame::FindWitnesses() {
  for (const bool heldout : {false, true}) {
    RandomSequence random(0, TrajectoryId{heldout ? Stream::kEval : Stream::kTrain, 0, 0, 0},
                          RandomPurpose::kTask);
    int found = 0, solved = 0, draw = 0;
    for (; draw < kProbeDraws && solved < kProbeSolves && found < kWantedInstances; ++draw) {
      std::optional<Instance> instance = Draw(random, heldout);
      if (!instance) continue;
      ++solved;
      if (!HasWantedSolutions(*instance)) continue;
      if (found++ == 0) witnesses_[heldout] = *std::move(instance);
    }
    if (found < kWantedInstances) {
      return InvalidArgument(
          std::string("task.difficulty and task.heldout_fraction (") +
          std::to_string(options_.heldout_fraction) + ") leave too few instances in the " +
          (heldout ? "held-out" : "train") + " split: " + std::to_string(found) + " of " +
          std::to_string(draw) + " drawn qualify, " + std::to_string(kWantedInstances) +
          " are needed (widen the target range, the numbers or the window of solutions)");
    }
  }
  return Status::Ok();
}

Item NumberGame::MakeItem(Stream stream, std::uint64_t index, Instance instance) const {
  Item item;
  item.stream = stream;
  item.index = index;
  item.canonical = Canonical(instance);
  item.canonical_hash = HashText128(item.canonical);
  for (const std::int64_t number : instance.numbers) {
    if (!item.prompt.empty()) item.prompt += ' ';
    item.prompt += std::to_string(number);
  }
  item.prompt += '=' + std::to_string(instance.target) + ':';
  item.numbers = std::move(instance.numbers);
  item.target = instance.target;
  item.level = static_cast<int>(item.numbers.size());
  return item;
}

Item NumberGame::Generate(std::uint64_t seed, Stream stream, std::uint64_t index) const {
  const bool heldout = stream == Stream::kEval;
  const TrajectoryId id{stream, 0, index, 0};
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    RandomSequence random(seed, id, RandomPurpose::kTask, static_cast<std::uint16_t>(attempt));
    std::optional<Instance> instance = Draw(random, heldout);
    if (instance && HasWantedSolutions(*instance)) {
      return MakeItem(stream, index, *std::move(instance));
    }
  }
  return MakeItem(stream, index, witnesses_[heldout]);
}

Verdict NumberGame::Verify(const Item& item, std::string_view text) const {
  return JudgeSteps(item.numbers, item.target, rules_, text);
}

std::string NumberGame::Reference(const Item& item, RandomSequence& random) const {
  StepSolver solver(rules_, item.target);
  const bool shortest = options_.trace_style == "shortest";
  return FormatSteps(solver.Sample(Board(item.numbers), shortest, random));
}

std::string NumberGame::Perturb(const Item& item, RandomSequence& random) const {
  const std::string reference = Reference(item, random);
  for (int attempt = 0; attempt < kPerturbAttempts; ++attempt) {
    std::string text = random.Below(4) == 0 ? OffTarget(item, random) : Mutate(reference, random);
    if (Verify(item, text).score < 1) return text;
  }
  return reference.substr(0, reference.size() - 1);  // unterminated, so never right
}

std::string NumberGame::RandomPolicy(const Item& item, RandomSequence& random) const {
  return FormatSteps(PlayUntilOver(Board(item.numbers), rules_, item.target, random));
}

std::vector<Step> NumberGame::RandomGame(const Board& board, RandomSequence& random) const {
  const auto longest = static_cast<std::int64_t>(board.size()) - 1;
  const std::int64_t shortest = rules_.use_all ? longest : std::min<std::int64_t>(2, longest);
  const auto count = static_cast<int>(random.Between(shortest, longest));
  return PlaySteps(board, count, rules_.count_identity_steps, random);
}

std::string NumberGame::OffTarget(const Item& item, RandomSequence& random) const {
  const Board board(item.numbers);
  std::vector<Step> fallback;
  for (int attempt = 0; attempt < kOffTargetAttempts; ++attempt) {
    std::vector<Step> game = RandomGame(board, random);
    const std::int64_t result = game.back().result;
    if (!rules_.use_all && !IsFirstSight(board, game)) continue;
    if (StopsAt(game, item.target, rules_)) continue;
    if (result >= options_.min_target && result <= options_.max_target) return FormatSteps(game);
    if (fallback.empty()) fallback = std::move(game);
  }
  if (fallback.empty()) fallback = MissOnPurpose(board, rules_, item.target, random);
  return FormatSteps(fallback);
}

}  // namespace thresher::tasks
