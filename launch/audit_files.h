#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <unordered_set>

#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/data/trajectory.h"
#include "common/data/trajectory_store.h"
#include "launch/audit_facts.h"

namespace thresher::launch {

// Compares what the journal says with every other file of a run: trajectories, published weights,
// checkpoints, metrics.jsonl and summary.json. What retention deleted cannot be compared and is
// passed over.
class FileAudit {
 public:
  FileAudit(std::filesystem::path run, const Config& config, const JournalFacts& facts,
            Findings& findings)
      : run_(std::move(run)),
        plan_(config),
        facts_(facts),
        findings_(findings),
        may_be_left_out_(config.journal.off()) {
    if (!config.engine.strict) ReadOtherNumerics();
  }

  void CheckTrajectories();
  void CheckWeights();
  void CheckCheckpoints();
  void CheckMetrics();
  void CheckSummary();

  std::uint64_t stored_trajectories() const { return stored_; }
  // Accepted and neither stored nor deleted: with journal.mode off no problem.
  std::uint64_t not_stored() const { return not_stored_; }

 private:
  void ReadOtherNumerics();
  // Of one that was settled before the audit begins.
  bool CheckSettled(const TrajectoryStoreReader::Entry& entry, const Trajectory& t);
  void CheckStored(const TrajectoryStoreReader::Entry& entry, std::string_view bytes);
  void CheckAgainstJournal(const std::string& name, const Trajectory& t,
                           const wire::SampleAccepted& r);
  void CheckWeightsFile(const wire::VersionPublished& record, const std::filesystem::path& file);

  std::filesystem::path run_;
  Plan plan_;
  const JournalFacts& facts_;
  Findings& findings_;
  bool may_be_left_out_;
  std::uint64_t stored_ = 0, not_stored_ = 0;
  Hash128 run_identity_;  // of the first trajectory; all have the same, or one of other_numerics_
  std::set<std::string> other_numerics_;  // admitted beside it: engine.strict is false
};

}  // namespace thresher::launch
