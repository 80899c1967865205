#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "broker/run_state.h"
#include "common/base/ids.h"
#include "common/wire/records.h"
#include "launch/audit.h"

namespace thresher::launch {

// Collects what an audit finds wrong, at most AuditReport::kMaxProblems texts.
class Findings {
 public:
  void Problem(const std::string& text) {
    if (problems_.size() < AuditReport::kMaxProblems) problems_.push_back(text);
    ++count_;
  }
  void Expect(bool holds, const std::string& text) {
    if (!holds) Problem(text);
  }
  std::uint64_t count() const { return count_; }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  std::vector<std::string> problems_;
  std::uint64_t count_ = 0;
};

// A step, and which of its rounds of issue.
using StepRound = std::pair<std::uint32_t, std::uint32_t>;

// How a sample ended.
enum class Fate : std::uint8_t { kTrained, kEvaluated, kDropped };

// What a journal says, in sets and maps. Filled by JournalAudit, compared with the other files by
// FileAudit.
struct JournalFacts {
  // Where older records were deleted: the oldest snapshot, taken as right. The records before
  // `first_record` are in it; of steps below `first_step` commits are not known.
  std::shared_ptr<const broker::RunState> base;
  std::uint64_t first_record = 0;
  std::uint32_t first_step = 0;
  std::unordered_set<TrajectoryId> from_base;  // accepted before first_record, and open then

  std::uint64_t records = 0;
  std::uint64_t epoch = 0;        // of the last broker start
  Hash128 run_identity;           // zero until a broker start knew it
  std::set<TrajectoryId> issued;  // ordered: problems are listed in canonical order
  std::unordered_map<TrajectoryId, wire::SampleAccepted> accepted;
  std::unordered_map<TrajectoryId, Fate> fate;
  std::map<StepRound, wire::ItemsIssued> steps;
  std::map<std::uint32_t, wire::ItemsIssued> rounds;  // by evaluation round
  std::map<std::uint32_t, wire::BatchComposed> batches;
  std::vector<wire::StepCommitted> commits;  // first commits, by step
  std::map<PolicyVersion, wire::VersionPublished> published;
  std::vector<wire::StepsDurable> durable;
  std::set<std::uint32_t> evaluated;  // rounds
  std::optional<wire::RunFinished> finished;
  std::uint64_t retrained = 0;  // steps trained again after a recovery
  std::uint64_t audited_tokens = 0, mismatched_tokens = 0, nondeterministic = 0;
};

}  // namespace thresher::launch
