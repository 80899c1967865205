#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "broker/dedup.h"
#include "broker/evaluation.h"
#include "broker/group_assembler.h"
#include "broker/heldout_watch.h"
#include "broker/interval_set.h"
#include "broker/ledger.h"
#include "common/base/status.h"
#include "common/config/plan.h"
#include "common/wire/records.h"

namespace thresher::broker {

// Rewards and lengths of what was accepted for one step, before filtering.
struct StepStatistics {
  std::uint64_t accepted = 0;
  double reward_sum = 0;
  std::uint64_t loss_tokens = 0;
  std::uint64_t outcomes[5] = {};   // by OutcomeKind
  std::uint64_t zero_variance = 0;  // samples
  std::uint64_t not_selected = 0;
  std::uint64_t surplus = 0;
  std::uint64_t other_drops = 0;
  std::uint32_t rounds = 0;  // of groups issued
  friend bool operator==(const StepStatistics&, const StepStatistics&) = default;
};

// Everything the broker knows about the run's work, as a fold over journal records: the live broker
// appends a record and applies it; a restarted one applies the same records again and so has the
// same state. Nothing else changes it. Plain data: no thread, socket, clock or file. Not
// thread-safe.
//
// Its memory is bounded by what is live: open units, and what was trained or evaluated since the
// durable checkpoint before the last one, where a learner still starts again when the last one is
// damaged. When a checkpoint is durable, what is older is forgotten: batches, commits (but the last
// one, whose chain and state hash go on), samples (Dedup keeps ordinals), versions that no
// evaluation waits for. Of the whole run there remain counts, and a summary of each evaluation.
//
// Invariant: after every Apply, ledger().Check(groups().CountHeld()) is ok.
class RunState {
 public:
  explicit RunState(const Plan& plan) : plan_(plan) {}

  // Errors: kFailedPrecondition, kNotFound or kAlreadyExists when the record does not fit the
  // state: a damaged journal, or a bug. The state is then not to be used any more.
  Status Apply(const wire::JournalRecord& record);

  const Plan& plan() const { return plan_; }
  const Ledger& ledger() const { return ledger_; }
  const GroupAssembler& groups() const { return groups_; }
  const Dedup& dedup() const { return dedup_; }
  BrokerEpoch epoch() const { return epoch_; }
  std::uint32_t lineage() const { return 0; }  // forks come with resuming older checkpoints

  // The next step to be committed; steps below it are.
  std::uint32_t committed_steps() const { return committed_steps_; }
  std::uint32_t durable_steps() const { return durable_steps_; }
  // Steps below it are forgotten: a learner can start again from this step on.
  std::uint32_t remembered_from() const { return remembered_from_; }
  bool IssuedUnit(const UnitKey& unit) const {
    return issued_[unit.evaluation].Contains(unit.number);
  }
  // What the plan issues as that unit; nothing: it has no such unit.
  std::optional<wire::ItemsIssued> Planned(const UnitKey& unit) const;
  // Whether it is that, with whatever version.
  bool IsPlanned(const wire::ItemsIssued& issued) const;
  bool Evaluated(std::uint32_t round) const { return evals_.contains(round); }
  bool finished() const { return finished_; }

  const wire::BatchComposed* Batch(std::uint32_t step) const;   // null: not composed, or forgotten
  const wire::StepCommitted* Commit(std::uint32_t step) const;  // null: not committed, or forgotten
  const wire::VersionPublished* Published(
      PolicyVersion) const;  // null: not published, or forgotten
  std::optional<PolicyVersion> NewestPublished() const;
  // Those that are not forgotten; the newest is among them.
  const std::map<PolicyVersion, wire::VersionPublished>& published() const { return published_; }
  std::uint64_t published_versions() const { return published_versions_; }  // ever
  const std::map<std::uint32_t, EvalSummary>& evals() const { return evals_; }
  const wire::StepsDurable& last_durable() const { return last_durable_; }
  // Chain over steps below `step`, which lies in [remembered_from(), committed_steps()] (checked).
  Hash128 ChainBefore(std::uint32_t step) const;
  // Of an open step and of the last one committed; else null.
  const StepStatistics* Statistics(std::uint32_t step) const;

  std::uint64_t accepted() const { return dedup_.accepted(); }
  std::uint64_t nondeterministic() const { return nondeterministic_; }
  std::uint64_t trained_tokens() const { return trained_tokens_; }
  std::uint64_t audited_tokens() const { return audited_tokens_; }
  std::uint64_t mismatched_tokens() const { return mismatched_tokens_; }
  std::uint64_t retrained_steps() const { return retrained_steps_; }
  // Largest staleness of an accepted training sample, in versions: its step minus the oldest
  // version that generated any of its tokens. 0 in sync mode.
  std::uint32_t max_staleness() const { return max_staleness_; }
  // Distinct task instances that were both trained on and evaluated: must stay 0.
  std::uint64_t heldout_overlap() const { return heldout_.overlap(); }
  const HeldoutWatch& heldout() const { return heldout_; }

  friend bool operator==(const RunState& a, const RunState& b);
  // All of it but the plan, for a snapshot (state_bytes.h).
  template <typename Io>
  void Fields(Io& io);

 private:
  friend class StateCheck;
  Status ApplyRecord(const wire::EpochStarted& record);
  Status ApplyRecord(const wire::ItemsIssued& record);
  Status ApplyRecord(const wire::SampleAccepted& record);
  Status ApplyRecord(const wire::SampleDropped& record);
  Status ApplyRecord(const wire::BatchComposed& record);
  Status ApplyRecord(const wire::StepCommitted& record);
  Status ApplyRecord(const wire::VersionPublished& record);
  Status ApplyRecord(const wire::StepsDurable& record);
  Status ApplyRecord(const wire::RoundEvaluated& record);
  Status ApplyRecord(const wire::RunFinished& record);
  Status ApplyRetrained(const wire::StepCommitted& record);
  Status Close(const UnitKey& unit);
  // Steps below `step`, and rounds that are evaluated.
  void Forget(std::uint32_t step);
  void SkipUnusedRounds(const wire::ItemsIssued& issued);
  void ForgetVersions();

  Plan plan_;
  Ledger ledger_;
  GroupAssembler groups_;
  Dedup dedup_;
  BrokerEpoch epoch_;
  std::array<IntervalSet, 2> issued_;             // steps, rounds
  std::map<UnitKey, wire::ItemsIssued> settled_;  // closed, and not forgotten
  std::map<std::uint32_t, wire::BatchComposed> batches_;
  std::map<std::uint32_t, wire::StepCommitted> commits_;
  std::map<PolicyVersion, wire::VersionPublished> published_;
  std::map<std::uint32_t, EvalSummary> evals_;
  std::map<std::uint32_t, StepStatistics> statistics_;
  wire::StepsDurable last_durable_;
  std::uint32_t committed_steps_ = 0;
  std::uint32_t durable_steps_ = 0;
  std::uint32_t remembered_from_ = 0;
  bool finished_ = false;
  std::uint64_t published_versions_ = 0;
  std::uint64_t nondeterministic_ = 0;
  std::uint64_t trained_tokens_ = 0;
  std::uint64_t audited_tokens_ = 0;
  std::uint64_t mismatched_tokens_ = 0;
  std::uint64_t retrained_steps_ = 0;
  std::uint32_t max_staleness_ = 0;
  HeldoutWatch heldout_;
};

// The digest of an evaluation round over its accepted samples in canonical order.
Hash128 RoundDigest(const GroupAssembler& groups, std::uint32_t round);

}  // namespace thresher::broker
