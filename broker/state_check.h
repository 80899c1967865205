#pragma once

#include "broker/run_state.h"
#include "common/base/status.h"

namespace thresher::broker {

// Whether a state that was read from a file is one that journal records can lead to: its parts
// speak of the same units, samples, batches and commits, and of those of the plan. What only the
// records know (rewards, hashes, counts of tokens) is not looked at. A state that passes takes
// every further record, or refuses it; one that does not is not to be used for anything else. Takes
// time in proportion to what is live, and a little for each step of the past. Error: kDataLoss
// naming what does not fit.
Status CheckState(const RunState& state);

}  // namespace thresher::broker
