#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/status.h"
#include "common/config/plan.h"
#include "common/model/run_context.h"
#include "common/sync/side_task.h"
#include "learner/checkpoint.h"
#include "learner/critic.h"
#include "learner/optimizer.h"
#include "learner/session.h"

namespace thresher::learner {

// The checkpoints of rank 0, one at a time: written, reported when they are durable, then old ones
// deleted. With checkpoint.background a task writes what Optimizer::Share gave, and deletes,
// while training goes on; what is told to the broker is told by the rank's thread, to which all
// members belong. A disk without room: it is tried again every second; training goes on until the
// next checkpoint, or the end, has to wait for this one.
class CheckpointSaver {
 public:
  // Borrows all of them.
  CheckpointSaver(const model::RunContext& run, const Plan& plan, Session& session,
                  FaultPlan& faults);

  // Saves `state`, whose weights and moments the optimiser and the critic (null: none) have. Blocks
  // until the checkpoint before is reported and this one shared, or written. Errors:
  // kResourceExhausted (no room for 8 minutes, or four fifths of the ranks' deadline, or 15 s after
  // a stop was asked for), kAlreadyExists (see SaveCheckpoint), those of the disk, the optimiser
  // and the session; also of the checkpoint before.
  Status Save(TrainState& state, Optimizer& optimizer, Critic* critic);
  // Between steps: takes note of what the task has done. Errors: as Save.
  Status Poll();
  // Blocks until nothing is in flight. Errors: as Save.
  Status Finish();

  // When the run is over and nothing is in flight: deletes those that were kept for an evaluation
  // and are not among the best.
  Status PruneLast(std::vector<std::uint32_t> best);

  // Since the last call, in milliseconds: how long training was held up; how long those took to
  // write that became durable. And whether one waits for room.
  struct Figures {
    double stall_ms = 0, write_ms = 0;
    bool waits = false;
  };
  Figures TakeFigures();

 private:
  enum class Stage { kIdle, kWriting, kNoRoom, kPruning };

  Status SaveInPlace(TrainState& state, Optimizer& optimizer, Critic* critic);
  void Write();
  // Takes the task's outcome, if it comes within `wait`, and goes on to the next stage.
  Status Look(Duration wait);
  Status OnWritten(const Status& written);
  void NoteRoom(const Status& room);
  void Prune();
  Status FinishAll();

  const model::RunContext& run_;
  const Plan& plan_;
  Session& session_;
  FaultPlan& faults_;
  Stage stage_ = Stage::kIdle;
  const TrainState* saving_ = nullptr;  // what is written
  SavedCheckpoint saved_;               // by the task, until its outcome is taken
  Status no_room_;                      // of the last try; ok: there was
  TimePoint began_{}, next_try_{};
  std::optional<std::uint32_t> reported_;  // step of the newest one
  std::vector<std::uint32_t> best_;        // steps the broker asked to keep
  Figures figures_;
  TrainState copy_;      // or shared with the optimiser; its memory is used again
  sync::SideTask task_;  // last: it uses the members above
};

}  // namespace thresher::learner
