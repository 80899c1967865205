#pragma once

#include <filesystem>
#include <string>

#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/data/record_log.h"
#include "launch/audit_facts.h"

namespace thresher::launch {

// Reads a run's journal once and checks every record against those before it and against the plan
// that the configuration gives. Shares no code with the broker; but where older records were
// deleted (journal.keep_bytes), it begins with the broker's oldest snapshot and takes that as
// right.
class JournalAudit {
 public:
  JournalAudit(const Config& config, const Hash128& run_id, Findings& findings)
      : config_(config), plan_(config), run_id_(run_id), findings_(findings) {}

  // Reads `journal` (a record log) and then checks what must hold at the end.
  JournalFacts Read(const std::filesystem::path& journal);

 private:
  // Where to begin reading.
  Result<LogCursor> Begin(const std::filesystem::path& journal);
  void TakeBase(const broker::RunState& state);
  void TakeOpenUnits(const broker::RunState& state);
  void On(const wire::EpochStarted& r);
  void On(const wire::ItemsIssued& r);
  void On(const wire::SampleAccepted& r);
  void On(const wire::SampleDropped& r);
  void On(const wire::BatchComposed& r);
  void On(const wire::StepCommitted& r);
  void On(const wire::VersionPublished& r);
  void On(const wire::StepsDurable& r);
  void On(const wire::RoundEvaluated& r);
  void On(const wire::RunFinished& r);

  void CheckRoundWasNeeded(const wire::ItemsIssued& r, const std::string& name);
  void CheckRoundsWereEnough(const wire::BatchComposed& r, const StepPlan& step,
                             const std::string& name);
  void CheckRetrained(const wire::StepCommitted& r, const std::string& name);
  void CheckBatchIds(const wire::BatchComposed& r, const std::string& name);
  void CheckBatchIsComplete(const wire::BatchComposed& r, const std::string& name);
  void CheckStaleness(const TrajectoryId& id, std::uint32_t step);
  void CheckDropReason(const wire::SampleDropped& r);
  void CheckEnd();

  // Every sample of an issued unit, in canonical order.
  static std::vector<TrajectoryId> SamplesOf(const wire::ItemsIssued& r);
  // All samples of the item arrived and got the same reward.
  bool GroupIsEqual(const TrajectoryId& id, std::uint32_t samples) const;
  bool GroupIsComplete(const TrajectoryId& id, std::uint32_t samples) const;
  const wire::ItemsIssued* UnitOf(const TrajectoryId& id) const;
  // What was issued for a step, in order.
  std::vector<const wire::ItemsIssued*> RoundsOf(std::uint32_t step) const;
  // The first samples of a step's groups that can be trained, in issue order.
  std::vector<TrajectoryId> InformativeOf(std::uint32_t step) const;
  bool IsSurplus(const TrajectoryId& id, const wire::ItemsIssued& unit) const;
  bool IsDropped(const TrajectoryId& id) const;
  void Settle(const TrajectoryId& id, Fate fate);
  // Digest of samples as they were accepted; names those that were not.
  Hash128 DigestOf(const std::vector<TrajectoryId>& ids);

  void Problem(const std::string& what);  // names the journal record at hand
  void Expect(bool holds, const std::string& what) {
    if (!holds) Problem(what);
  }

  const Config& config_;
  Plan plan_;
  Hash128 run_id_;
  Findings& findings_;
  JournalFacts facts_;
  std::uint64_t sequence_ = 0;
};

}  // namespace thresher::launch
