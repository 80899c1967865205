#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "actor/tasks/rules.h"
#include "actor/tasks/verdict.h"

namespace thresher::tasks {

// No legal answer is longer: 5 steps with three numbers of at most 19 digits are 300 characters.
inline constexpr std::size_t kMaxAnswerChars = 512;

// Judges an answer in steps. The language, over bytes:
//   answer := step (',' step)* ';'      step := number op number '=' number
//   op := '+' | '-' | '*' | '/'         number := '0' | [1-9][0-9]*, at most kMaxValue
// and nothing before or after: no white space, no sign, no second '='. Reason codes are listed in
// the README. Total over all bytes; looks at no more than kMaxAnswerChars + 1 of them.
// numbers: 1..kMaxNumbers values >= 0 (checked).
Verdict JudgeSteps(std::span<const std::int64_t> numbers, std::int64_t target, const Rules& rules,
                   std::string_view text);

}  // namespace thresher::tasks
