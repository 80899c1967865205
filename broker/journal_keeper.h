#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "broker/journal.h"
#include "broker/run_state.h"
#include "common/base/fault.h"
#include "common/base/status.h"
#include "common/config/config.h"

namespace thresher::broker {

// Keeps a restart short and the disk bounded while a run grows:
//   - a snapshot (snapshot.h), when a checkpoint became durable and enough records came since the
//     last one. The newest two stay; with a bound on the journal, older ones go to `archive/`,
//     where an audit can begin with them;
//   - a segment of the journal that lies wholly before the older of the two goes to `archive/`;
//   - what exceeds journal.keep_bytes is deleted, from the oldest on up to a snapshot: never what
//     a start needs;
//   - segments of trajectories that exceed trajectories.keep_bytes, never one that holds what the
//     state still remembers or that a start looks through.
// Hears of "snapshot_before_write" and so on (FaultPlan). One owner; TakeSnapshot and Tidy, which
// wait for the disk, may be another thread's while nothing else is called.
class JournalKeeper {
 public:
  struct Limits {
    std::uint64_t snapshot_records = 0;
    std::uint64_t journal_bytes = 0;       // 0: all are kept
    std::uint64_t trajectories_bytes = 0;  // 0: all are kept
  };
  static Limits LimitsOf(const Config& config);

  // `run`: with the folders made. `faults` is borrowed.
  JournalKeeper(std::filesystem::path run, const Limits& limits, FaultPlan* faults);

  // Just before the records that made `state` what it is are sealed, while nothing is being
  // written: takes a copy of it when a snapshot is due.
  void Seal(const Journal& journal, const RunState& state);
  // Whether it did, and that was not written yet.
  bool sealed() const { return sealed_.has_value(); }
  // When what was sealed is written: writes the snapshot; the journal is not used meanwhile.
  // Errors: I/O, kDataLoss; the run goes on without, and a later snapshot is tried.
  Status TakeSnapshot(Journal& journal);
  // Whether there may be something for Tidy.
  bool untidy() const { return archive_before_ > 0 || trim_; }
  // Does one small thing with old segments, if there is one to do; the journal may be written
  // meanwhile. Both ends: of what is written. Errors as above; a later call tries again.
  Status Tidy(const LogCursor& journal_end, const LogCursor& store_end);
  std::uint64_t snapshots() const { return snapshots_; }  // taken by this process

 private:
  bool Due(const Journal& journal, const RunState& state) const;
  Status RetireSnapshots();
  Status Retire(const std::filesystem::path& snapshot);
  Status ArchiveOne(const LogCursor& journal_end);
  Status DeleteJournal();
  Status DeleteTrajectories(const LogCursor& store_end);
  void Reached(const char* point) {
    if (faults_ != nullptr) faults_->Reached(point);
  }

  std::filesystem::path run_;
  Limits limits_;
  FaultPlan* faults_;
  std::uint64_t last_sequence_ = 0;  // of the newest snapshot
  std::uint32_t durable_steps_ = 0;  // then
  bool known_ = false;               // durable_steps_ is
  struct Sealed {
    std::string bytes;
    std::uint32_t durable_steps = 0;
    std::vector<TrajectoryId> remembered;
  };
  std::optional<Sealed> sealed_;          // a state whose records are being written
  std::vector<TrajectoryId> remembered_;  // by the newest snapshot; never deleted
  std::uint32_t archive_before_ = 0;      // journal segments below it may go
  std::uint32_t store_before_ = 0;        // a start looks through trajectories from this segment on
  bool trim_ = false;                     // whether the bounds are to be looked at
  std::uint64_t snapshots_ = 0;
};

}  // namespace thresher::broker
