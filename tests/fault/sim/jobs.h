#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/sim/sweep.h"

namespace thresher::sim {

// Once in each process before its first history: quiet logs, libtorch on one thread.
void SetUpProcess();

// Runs the histories of `seeds` in `jobs` child processes, so that one that crashes is one failed
// history, told with its signal. Calls `report` with each as it ends, in no particular order; false
// from it ends the work early. A child computes the result of each undisturbed run once.
void RunInJobs(const std::vector<std::uint64_t>& seeds, int jobs,
               const std::function<bool(const HistoryOutcome&)>& report);

}  // namespace thresher::sim
