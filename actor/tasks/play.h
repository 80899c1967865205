#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "actor/tasks/rules.h"
#include "common/base/random.h"

namespace thresher::tasks {

// Random legal play. At each turn every step of LegalSteps (distinct by value) is equally likely.

// Exactly `count` steps, with or without x1 and /1; 0 <= count < board.size().
std::vector<Step> PlaySteps(const Board& board, int count, bool identity_steps,
                            RandomSequence& random);

// Until one number is left or, when numbers may stay unused, the target appears; x1 and /1 are
// played like any other step.
std::vector<Step> PlayUntilOver(const Board& board, const Rules& rules, std::int64_t target,
                                RandomSequence& random);

// A legal game without a winning result, of board.size() - 1 steps or, when numbers may stay
// unused, of one. target >= 1, board.size() >= 2. Always finds one.
std::vector<Step> MissOnPurpose(const Board& board, const Rules& rules, std::int64_t target,
                                RandomSequence& random);

// `text` (an empty one stays as it is) with one random local change: a digit or an operator
// replaced, a character deleted, doubled or swapped with the next, the last step dropped, or text
// added at the end.
std::string Mutate(std::string_view text, RandomSequence& random);

}  // namespace thresher::tasks
