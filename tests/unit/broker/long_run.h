#pragma once

#include <filesystem>
#include <memory>

#include "broker/batcher.h"
#include "broker/journal.h"
#include "broker/journal_keeper.h"
#include "broker/run_state.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {

// Writes the journal and the trajectories of a run that goes on and on, one RL step after another,
// with small records: as the broker would, without peers.
class LongRun {
 public:
  LongRun(const std::filesystem::path& folder, const Config& config)
      : folder_(folder),
        config_(config),
        state_(Plan(config)),
        keeper_(folder, JournalKeeper::LimitsOf(config), nullptr) {
    Reopen();
    Record(wire::EpochStarted{BrokerEpoch(1), Incarnation(1), {}, {}});
    Publish(0);
    Commit();
  }

  // One step: issued, all of it accepted, composed, committed and, every `durable_every`-th time,
  // in a checkpoint.
  void Step(std::uint32_t durable_every) {
    const std::uint32_t step = state_.committed_steps();
    Issue(step);
    AcceptAll(step);
    Record(ComposeBatch(state_.groups(), state_.plan().Step(step), 0, false).batch);
    const Hash128 digest = state_.Batch(step)->digest;
    const Hash128 chain = wire::HashChain(state_.ChainBefore(step), digest);
    Record(wire::StepCommitted{0, step, digest, chain, H("state"), 5, 5, 0, false});
    Publish(step + 1);
    Commit();
    if ((step + 1) % durable_every != 0) return;
    Record(wire::StepsDurable{0, step + 1, "checkpoints/x", {}, chain});
    Commit();
  }
  void Issue(std::uint32_t step) {
    const StepPlan plan = state_.plan().Step(step);
    Record(Issued(plan, plan.phase == Phase::kRl ? V(step) : V(0)));
  }
  void AcceptAll(std::uint32_t step) {
    const StepPlan plan = state_.plan().Step(step);
    for (std::uint64_t item = 0; item < plan.items; ++item) {
      for (std::uint32_t sample = 0; sample < plan.samples; ++sample) {
        Accept({plan.stream, 0, plan.first_item + item, sample});
      }
      if (item % 64 == 63) Commit();
    }
    Commit();
  }
  void Commit() {
    keeper_.Seal(*journal_, state_);
    Expect(journal_->Commit());
    if (keeper_.sealed()) Expect(keeper_.TakeSnapshot(*journal_));
    for (int i = 0; i < 3; ++i) Expect(keeper_.Tidy(journal_->end(), journal_->store_end()));
  }
  // The process ends; what was committed stays.
  void Close() { journal_.reset(); }
  void Reopen() {
    auto journal = Journal::Open(folder_, config_.journal);
    Expect(journal.status());
    journal_ = *std::move(journal);
  }

  const RunState& state() const { return state_; }
  std::uint64_t records() const { return journal_->end().sequence; }

 private:
  static void Expect(const Status& status) { THRESHER_CHECK(status.ok(), status.ToString()); }
  void Accept(const TrajectoryId& id) {
    const wire::SampleAccepted record = Accepted(id, id.sample % 2);
    journal_->Store({id, record.content_hash, "bytes of " + id.ToString()});
    Record(record);
  }
  void Publish(std::uint32_t version) { Record(wire::VersionPublished{V(version), H("w"), 1}); }
  void Record(const wire::JournalRecord& record) {
    Expect(state_.Apply(record));
    journal_->Record(record);
  }

  std::filesystem::path folder_;
  Config config_;
  RunState state_;
  std::unique_ptr<Journal> journal_;
  JournalKeeper keeper_;
};

}  // namespace thresher::broker
