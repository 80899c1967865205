#include "actor/tasks/play.h"

#include <algorithm>

#include "common/base/check.h"

namespace thresher::tasks {
namespace {

Step PlayOne(const Board& board, bool identity_steps, RandomSequence& random) {
  const StepList steps = LegalSteps(board, identity_steps);
  return steps[random.Below(steps.size())];
}

// A position whose character satisfies `wanted`, or npos.
template <typename Predicate>
std::size_t RandomPosition(std::string_view text, Predicate wanted, RandomSequence& random) {
  std::vector<std::size_t> positions;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (wanted(text[i])) positions.push_back(i);
  }
  return positions.empty() ? std::string_view::npos : positions[random.Below(positions.size())];
}

// Replaces a random character of `set` by another one of `set`.
std::string ReplaceOneOf(std::string_view set, std::string text, RandomSequence& random) {
  const auto in_set = [&](char c) { return set.find(c) != std::string_view::npos; };
  const std::size_t at = RandomPosition(text, in_set, random);
  if (at == std::string::npos) return text;
  const std::size_t shift = 1 + random.Below(set.size() - 1);
  text[at] = set[(set.find(text[at]) + shift) % set.size()];
  return text;
}

}  // namespace

std::vector<Step> PlaySteps(const Board& start, int count, bool identity_steps,
                            RandomSequence& random) {
  std::vector<Step> game;
  Board board = start;
  for (int i = 0; i < count; ++i) {
    game.push_back(PlayOne(board, identity_steps, random));
    board = board.After(game.back());
  }
  return game;
}

std::vector<Step> PlayUntilOver(const Board& start, const Rules& rules, std::int64_t target,
                                RandomSequence& random) {
  std::vector<Step> game;
  for (Board board = start; board.size() > 1; board = board.After(game.back())) {
    game.push_back(PlayOne(board, /*identity_steps=*/true, random));
    if (!rules.use_all && game.back().result == target) break;
  }
  return game;
}

std::vector<Step> MissOnPurpose(const Board& start, const Rules& rules, std::int64_t target,
                                RandomSequence& random) {
  std::vector<Step> game;
  for (Board board = start; board.size() > 1; board = board.After(game.back())) {
    if (!rules.use_all && !game.empty()) break;
    std::vector<Step> misses;
    for (const Step& step : LegalSteps(board)) {
      const bool over = !rules.use_all || board.size() == 2;
      if (!over || step.result != target) misses.push_back(step);
    }
    // Sum and difference of two numbers are the same only if one is 0, and then their product is 0.
    THRESHER_CHECK(!misses.empty(), "every legal step reaches the target");
    game.push_back(misses[random.Below(misses.size())]);
  }
  return game;
}

std::string Mutate(std::string_view original, RandomSequence& random) {
  std::string text(original);
  if (text.empty()) return text;
  const std::size_t at = random.Below(text.size());
  switch (random.Below(8)) {
    case 0:
    case 1:
      return ReplaceOneOf("0123456789", std::move(text), random);
    case 2:
      return ReplaceOneOf("+-*/", std::move(text), random);
    case 3:
      return text.erase(at, 1);
    case 4:
      return text.insert(at, 1, text[at]);
    case 5:
      if (at + 1 < text.size()) std::swap(text[at], text[at + 1]);
      return text;
    case 6: {  // the last step dropped
      const std::size_t comma = text.rfind(',');
      return comma == std::string::npos ? ";" : text.substr(0, comma) + ';';
    }
    default:  // the answer given twice
      return text + text;
  }
}

}  // namespace thresher::tasks
