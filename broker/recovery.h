#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "broker/run_state.h"
#include "common/config/plan.h"
#include "common/data/trajectory.h"

namespace thresher::broker {

struct Recovered {
  RunState state;
  std::uint64_t records = 0;     // read from the journal
  std::uint64_t torn_bytes = 0;  // ignored at its end
  // Stored trajectories whose acceptance was not journalled: the broker died between the two
  // writes. They are judged again, and accepted or generated again. In file order.
  std::vector<Trajectory> orphans;
};

// Rebuilds the state of a run from `journal/` and `trajectories/`; both may be missing. Changes no
// file. Errors: kDataLoss naming file and record, or a sample that is still needed and whose bytes
// are gone; kFailedPrecondition when a record contradicts those before it.
Result<Recovered> Recover(const std::filesystem::path& run, const Plan& plan);

}  // namespace thresher::broker
