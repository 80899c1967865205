#pragma once

#include <cstdint>
#include <vector>

#include "broker/run_state.h"

namespace thresher::broker {

// The steps, ascending, whose checkpoints checkpoint.keep_best `best` keeps: of those that the plan
// evaluates, the `best` with the highest pass@1 (of equal ones the newer), and those that are
// trained and still to be evaluated. Empty when `best` is 0. The journal knows the evaluations, so
// a restarted broker says the same.
std::vector<std::uint32_t> BestCheckpoints(const RunState& state, int best);

}  // namespace thresher::broker
