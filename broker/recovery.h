#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "broker/run_state.h"
#include "common/config/plan.h"
#include "common/data/trajectory.h"
#include "common/data/trajectory_store.h"

namespace thresher::broker {

struct Recovered {
  RunState state;
  std::uint64_t records = 0;     // of the journal that were applied
  std::uint64_t stored = 0;      // entries of the store that were looked at one by one
  std::uint64_t torn_bytes = 0;  // ignored at the journal's end
  // Stored trajectories whose acceptance was not journalled: the broker died between the two
  // writes. They are judged again, and accepted or generated again. In file order.
  std::vector<Trajectory> orphans{};
  // Where those lie that a batch may still be asked for. Ascending.
  std::vector<TrajectoryStoreReader::Entry> places{};
  // Accepted, needed by a step that is not committed, and not stored (bytes_may_be_lost).
  // Ascending.
  std::vector<TrajectoryId> lost{};
  std::vector<std::string> warnings{};  // snapshots that are not whole
};

struct RecoverOptions {
  bool use_snapshots = true;       // else all records are applied, as far as they are there
  bool bytes_may_be_lost = false;  // journal.mode off: acceptances do not wait for their bytes
};

// Rebuilds the state of a run from `journal/` and `trajectories/`; both may be missing. Reads the
// newest whole snapshot and what lies behind it: the time is proportional to what is live and what
// came since, not to the run. Changes no file. Errors: kDataLoss naming file and record, or a
// sample that is still needed and whose bytes are gone and must not be; kFailedPrecondition when a
// record contradicts those before it.
Result<Recovered> Recover(const std::filesystem::path& run, const Plan& plan,
                          const RecoverOptions& options = {});

}  // namespace thresher::broker
