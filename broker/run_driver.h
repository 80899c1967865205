#pragma once

#include <string>

#include "broker/context.h"
#include "common/base/shared_bytes.h"
#include "common/data/trajectory.h"

namespace thresher::broker {

// Moves the run forward: the only writer of journal records. Each of its functions journals what
// happens and applies it to the state in the same breath.
class RunDriver {
 public:
  explicit RunDriver(BrokerContext& context) : context_(context) {}

  // Journals and applies. An error means that the record contradicts the state: the run stops.
  Status Record(const wire::JournalRecord& record);
  // Accepts a judged trajectory: stores `bytes`, unless they already lie in the store (recovery).
  Status Accept(const wire::SampleAccepted& record, SharedBytes bytes, bool already_stored,
                const ArrayRanges& arrays = {});
  Status Drop(const TrajectoryId& id, wire::DropReason reason, std::uint32_t step);

  // Issues what may be issued, composes complete steps, closes complete rounds, and finishes the
  // run when nothing is left. Returns what must stop it, a violated ledger among that.
  Status Advance();

  // Grows whenever work may have become available.
  std::uint64_t work_generation() const { return work_generation_; }
  void NoteWork() { ++work_generation_; }

 private:
  Status ComposeIfReady(const StepPlan& step);
  Status Compose(const StepPlan& step);
  Status CloseRound(const UnitKey& unit);
  bool AllDone() const;

  BrokerContext& context_;
  std::uint64_t work_generation_ = 0;
};

// Steps that the run's last checkpoint contains: the run is over when they are durable.
std::uint32_t LastCheckpointStep(const Plan& plan);

}  // namespace thresher::broker
