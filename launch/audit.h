#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher::launch {

// What an audit found. The run is sound when `problems` is empty.
struct AuditReport {
  struct Counts {
    std::uint64_t issued = 0, accepted = 0, trained = 0, evaluated = 0, dropped = 0, held = 0;
  };
  std::array<Counts, kStreamCount> streams{};
  std::vector<std::string> problems;  // each names the record concerned; at most kMaxProblems
  std::uint64_t problem_count = 0;
  std::uint64_t journal_records = 0, stored_trajectories = 0, committed_steps = 0;
  std::uint64_t audited_tokens = 0, mismatched_tokens = 0;
  std::uint64_t nondeterministic = 0, heldout_overlap = 0;
  // Where older records were deleted (journal.keep_bytes): the first one audited, and what the
  // snapshot before it says was settled, which is taken as right and counted in `streams`.
  std::uint64_t first_record = 0;
  // Accepted trajectories whose bytes were left out (journal.mode off): of these the audit knows
  // what the journal says, and nothing to compare it with.
  std::uint64_t not_stored = 0;
  bool finished = false;
  static constexpr std::size_t kMaxProblems = 100;
};

// Proves conservation (P5), the staleness bound (P7) and the integrity of a run from its files
// alone: the journal, the trajectory store, checkpoints and published weights. Shares no code with
// the broker's ledger: it reads the journal once and keeps sets. The run may be going on (what is
// issued and not yet settled counts as held). Errors: kNotFound (no run directory); what is wrong
// inside it is a problem of the report, not an error. Throws ConfigError for config.yaml.
Result<AuditReport> AuditRun(const std::filesystem::path& run);

}  // namespace thresher::launch
