#include "launch/audit.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "common/config/config.h"
#include "common/data/files.h"
#include "launch/audit_files.h"
#include "launch/audit_journal.h"

namespace thresher::launch {
namespace {

Result<Hash128> RunId(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "manifest.json";
  auto text = ReadFile(file);
  if (!text.ok()) {
    return NotFound(run.string() + ": not a run directory (" + text.status().message() + ")");
  }
  nlohmann::json manifest = nlohmann::json::parse(*text, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("run_id") || !manifest["run_id"].is_string()) {
    return DataLoss(file.string() + ": key run_id is missing");
  }
  return Hash128::Parse(manifest["run_id"].get<std::string>());
}

void CountStreams(const JournalFacts& facts, AuditReport& report) {
  for (const TrajectoryId& id : facts.issued) {
    auto& counts = report.streams[static_cast<std::size_t>(id.stream)];
    ++counts.issued;
    counts.accepted += facts.accepted.contains(id);
    auto fate = facts.fate.find(id);
    if (fate == facts.fate.end()) {
      ++counts.held;
      continue;
    }
    counts.trained += fate->second == Fate::kTrained;
    counts.evaluated += fate->second == Fate::kEvaluated;
    counts.dropped += fate->second == Fate::kDropped;
  }
}

// What was settled before the audit begins: the snapshot's counts without what was open in it.
void AddBase(const JournalFacts& facts, AuditReport& report) {
  if (facts.base == nullptr) return;
  for (const auto& [key, c] : facts.base->ledger().counts()) {
    auto& counts = report.streams[static_cast<std::size_t>(key.first)];
    counts.issued += c.issued;
    counts.trained += c.trained;
    counts.evaluated += c.evaluated;
    counts.dropped += c.DroppedTotal();
  }
  for (const auto& [key, unit] : facts.base->groups().units()) {
    auto& counts = report.streams[static_cast<std::size_t>(unit.issued.stream)];
    facts.base->groups().ForEach(key, [&](const TrajectoryId&, const broker::Slot& slot) {
      --counts.issued;
      counts.dropped -= slot.state == broker::Slot::State::kDropped;
    });
  }
}

// Instances that were evaluated and also trained on, whatever became of the sample. What a snapshot
// holds at the beginning has no instances any more, only their count.
std::uint64_t HeldoutOverlap(const JournalFacts& facts) {
  std::set<Hash128> trained, both;
  for (const auto& [id, record] : facts.accepted) {
    if (id.stream != Stream::kEval && !record.instance_hash.IsZero()) {
      trained.insert(record.instance_hash);
    }
  }
  for (const auto& [id, record] : facts.accepted) {
    bool overlaps = id.stream == Stream::kEval && trained.contains(record.instance_hash);
    if (overlaps) both.insert(record.instance_hash);
  }
  return both.size() + (facts.base == nullptr ? 0 : facts.base->heldout_overlap());
}

}  // namespace

Result<AuditReport> AuditRun(const std::filesystem::path& run) {
  THRESHER_ASSIGN_OR_RETURN(Hash128 run_id, RunId(run));
  Config config = LoadConfig(run / "config.yaml", {});
  Findings findings;
  JournalAudit journal(config, run_id, findings);
  const JournalFacts facts = journal.Read(run / "journal");
  FileAudit files(run, config, facts, findings);
  files.CheckTrajectories();
  files.CheckWeights();
  files.CheckCheckpoints();
  files.CheckMetrics();
  files.CheckSummary();

  AuditReport report;
  CountStreams(facts, report);
  AddBase(facts, report);
  report.first_record = facts.first_record;
  report.heldout_overlap = HeldoutOverlap(facts);
  findings.Expect(report.heldout_overlap == 0,
                  std::to_string(report.heldout_overlap) + " evaluated instances were trained on");
  report.problems = findings.problems();
  report.problem_count = findings.count();
  report.journal_records = facts.records;
  report.stored_trajectories = files.stored_trajectories();
  report.not_stored = files.not_stored();
  report.committed_steps = facts.commits.size();
  report.audited_tokens = facts.audited_tokens;
  report.mismatched_tokens = facts.mismatched_tokens;
  report.nondeterministic = facts.nondeterministic;
  report.finished = facts.finished.has_value();
  return report;
}

}  // namespace thresher::launch
