#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "broker/evaluation.h"
#include "common/config/plan.h"

namespace thresher::broker {

// The steps, ascending, whose checkpoints checkpoint.keep_best `best` keeps after `steps` committed
// ones: of those that the plan evaluates, the `best` with the highest pass@1 (of equal ones the
// newer), and those that are still to be evaluated. Empty when `best` is 0. `evals`: by round, as
// RunState has them; the journal knows them, so a restarted broker says the same. Pure.
std::vector<std::uint32_t> BestCheckpoints(const Plan& plan, std::uint32_t steps,
                                           const std::map<std::uint32_t, EvalSummary>& evals,
                                           int best);

}  // namespace thresher::broker
