#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher::tasks {

// Exact answers for a board given by hand. `task` is "digits" (numbers may stay unused, steps x1
// and /1 are not counted) or "countdown" (all numbers are used). What counts as one solution:
// solver.h.
//
// Errors, all kInvalidArgument with the value and what is allowed: an unknown task, fewer than 2 or
// more than 6 numbers, a number outside 1..1000, a target outside 1..1000000.
// Milliseconds for 6 numbers. Thread-safe.

Result<std::uint64_t> CountSolutions(std::string_view task, std::span<const std::int64_t> numbers,
                                     std::int64_t target);

// The solutions as "a+b=c,...;", at most `limit` of them, each once, in a fixed order; with a limit
// of at least CountSolutions, all. Each is one that the task's verifier scores 1.
Result<std::vector<std::string>> ListSolutions(std::string_view task,
                                               std::span<const std::int64_t> numbers,
                                               std::int64_t target, std::size_t limit);

}  // namespace thresher::tasks
