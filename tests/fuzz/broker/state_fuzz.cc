// The broker's state as its files give it back: the records of a journal, some of them spoiled,
// left out or said again, and snapshots with a checksum that fits, spoiled in their bytes or in a
// field. The input is the recipe (frame_mutation.h). What does not fit is refused, at the latest by
// the ledger's check; a snapshot that is taken gives the same one again, and the broker can go on
// from it: every question that it asks a state has an answer, every further record is taken or
// refused.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "broker/batcher.h"
#include "broker/snapshot.h"
#include "broker/work_source.h"
#include "common/base/check.h"
#include "tests/fuzz/broker/state_mutation.h"
#include "tests/fuzz/wire/frame_mutation.h"
#include "tests/unit/broker/support.h"

namespace {

using namespace thresher;  // NOLINT: one file, one purpose
using namespace thresher::broker;
using fuzz::Recipe;

// Plays the broker and all its peers: what is left of a run, from any state on.
class Player {
 public:
  Player(const Config& config, RunState state) : work_(config), state_(std::move(state)) {}

  // Until the run is finished. An error when a record is refused, or nothing is left to do before.
  Status GoOn() {
    THRESHER_RETURN_IF_ERROR(Record(wire::EpochStarted{BrokerEpoch(state_.epoch().value + 1),
                                                       Incarnation(1), H("run"), H("identity")}));
    while (!state_.finished()) {
      const std::size_t before = records_.size();
      THRESHER_RETURN_IF_ERROR(Publish());
      for (const wire::ItemsIssued& issued : work_.Issuable(state_)) {
        THRESHER_RETURN_IF_ERROR(Record(issued));
      }
      const auto units = state_.groups().units();  // a copy: they are closed meanwhile
      for (const auto& [key, unit] : units) {
        THRESHER_RETURN_IF_ERROR(Fill(key));
        if (key.evaluation) THRESHER_RETURN_IF_ERROR(Evaluate(unit.issued));
      }
      THRESHER_RETURN_IF_ERROR(Train());
      if (records_.size() > before) continue;
      THRESHER_RETURN_IF_ERROR(
          Record(wire::RunFinished{state_.plan().total_steps(), H("weights")}));
    }
    return state_.ledger().Check(state_.groups().CountHeld());
  }
  const RunState& state() const { return state_; }
  const std::vector<wire::JournalRecord>& records() const { return records_; }

 private:
  Status Record(const wire::JournalRecord& record) {
    records_.push_back(record);
    return state_.Apply(record);
  }
  Status Publish() {
    const PolicyVersion version = V(state_.committed_steps());
    if (!state_.plan().IsPublished(version.step) || state_.Published(version) != nullptr) {
      return Status::Ok();
    }
    return Record(wire::VersionPublished{version, H("weights"), 1});
  }
  Status Fill(const UnitKey& key) {
    std::vector<TrajectoryId> ids;
    state_.groups().ForEach(key, [&](const TrajectoryId& id, const Slot& slot) {
      if (slot.state == Slot::State::kIssued) ids.push_back(id);
    });
    for (const TrajectoryId& id : ids) {
      if (id.item % 7 == 5) {
        THRESHER_RETURN_IF_ERROR(
            Record(wire::SampleDropped{id, wire::DropReason::kGraderFailure, key.number}));
      } else {
        THRESHER_RETURN_IF_ERROR(Record(Accepted(id, id.item % 3 == 1 ? 0 : id.sample % 2)));
      }
    }
    return Status::Ok();
  }
  Status Evaluate(const wire::ItemsIssued& issued) {
    return Record(wire::RoundEvaluated{issued.round, issued.version,
                                       RoundDigest(state_.groups(), issued.round), issued.items,
                                       issued.samples});
  }
  // The next step, when its samples are in.
  Status Train() {
    const std::uint32_t next = state_.committed_steps();
    if (next >= state_.plan().total_steps()) return Status::Ok();
    const StepPlan step = state_.plan().Step(next);
    if (state_.Batch(next) == nullptr) {
      const StepStage stage = StageOf(state_.groups(), step);
      if (stage == StepStage::kWaiting || stage == StepStage::kNextRound) return Status::Ok();
      const Composition composed = ComposeBatch(state_.groups(), step, 0, true);
      for (const wire::SampleDropped& drop : composed.drops) THRESHER_RETURN_IF_ERROR(Record(drop));
      THRESHER_RETURN_IF_ERROR(Record(composed.batch));
    }
    const Hash128 digest = state_.Batch(next)->digest;
    const Hash128 chain = wire::HashChain(state_.ChainBefore(next), digest);
    THRESHER_RETURN_IF_ERROR(
        Record(wire::StepCommitted{0, next, digest, chain, H("state"), 5, 5, 0, false}));
    if (!step.checkpoint_after) return Status::Ok();
    return Record(wire::StepsDurable{0, next + 1, "checkpoints/x", H("manifest"), chain});
  }

  WorkSource work_;
  RunState state_;
  std::vector<wire::JournalRecord> records_;
};

// The records of a whole run.
class TrueRun {
 public:
  explicit TrueRun(const std::vector<std::string>& more)
      : config_(TinyConfig(more)), plan_(config_) {
    Player player(config_, RunState(plan_));
    const Status played = player.GoOn();
    THRESHER_CHECK(played.ok(), played.ToString());
    records_ = player.records();
  }
  const Config& config() const { return config_; }
  const Plan& plan() const { return plan_; }
  const std::vector<wire::JournalRecord>& records() const { return records_; }

 private:
  Config config_;
  Plan plan_;
  std::vector<wire::JournalRecord> records_;
};

const TrueRun& RunOf(std::size_t number) {
  static const TrueRun runs[] = {
      TrueRun({"rl.steps=5"}),
      TrueRun({"rl.steps=4", "rl.dynamic_sampling=true", "rl.max_rounds=3"})};
  return runs[number];
}

// False when the state is not to be used any more.
bool Take(RunState& state, const wire::JournalRecord& record) {
  if (!state.Apply(record).ok()) return false;
  return state.ledger().Check(state.groups().CountHeld()).ok();
}

void FuzzJournal(Recipe& recipe, const TrueRun& run) {
  RunState state(run.plan());
  const auto& records = run.records();
  std::size_t next = recipe.Below(records.size());
  for (std::size_t i = 0; i < next; ++i) THRESHER_CHECK(state.Apply(records[i]).ok(), "a true one");
  for (; next < records.size(); ++next) {
    wire::JournalRecord record = records[next];
    const std::size_t how = recipe.Below(8);
    if (how == 1) record = records[recipe.Below(records.size())];
    if (how == 2) continue;
    if (how == 3) {
      std::string bytes = wire::EncodeJournalRecord(record);
      fuzz::Spoil(bytes, recipe);
      const auto decoded = wire::DecodeJournalRecord(bytes);
      if (!decoded.ok()) return;
      record = *decoded;
    }
    if (!Take(state, record)) return;
  }
}

// What services and the status ask of a state.
void Ask(const RunState& state) {
  const std::uint32_t committed = state.committed_steps();
  for (std::uint32_t step = state.remembered_from(); step <= committed; ++step) {
    (void)state.ChainBefore(step);
    if (step == committed) break;
    for (const TrajectoryId& id : state.Batch(step)->ids) {
      THRESHER_CHECK(state.dedup().Find(id).has_value(), "trained and not remembered");
    }
  }
  for (const auto& [key, unit] : state.groups().units()) {
    std::uint64_t outstanding = 0;
    state.groups().ForEach(key, [&](const TrajectoryId& id, const Slot& slot) {
      outstanding += slot.state == Slot::State::kIssued;
      THRESHER_CHECK(slot.arrived == state.dedup().Find(id).has_value(), "arrived");
    });
    THRESHER_CHECK(outstanding == unit.outstanding, "outstanding");
  }
  for (const auto& [round, summary] : state.evals()) {
    (void)summary.pass_at_1();
    THRESHER_CHECK(summary.pass_at.size() == ReportedKs(summary.round.samples).size(), "pass@k");
  }
}

void CheckAgain(const Snapshot& snapshot, const Plan& plan) {
  const std::string encoded =
      EncodeSnapshot(snapshot.journal, snapshot.store, EncodeState(snapshot.state));
  const auto again = DecodeSnapshot(encoded, plan);
  THRESHER_CHECK(again.ok(), again.status().ToString());
  const RunState same = snapshot.state;  // not equal to itself: a spoiled reward is no number
  const bool numbers = same == snapshot.state;
  THRESHER_CHECK(!numbers || again->state == same, "a state that changes");
}

void FuzzSnapshot(Recipe& recipe, const TrueRun& run) {
  RunState state(run.plan());
  const auto& records = run.records();
  std::size_t next = recipe.Below(records.size() + 1);
  for (std::size_t i = 0; i < next; ++i) THRESHER_CHECK(state.Apply(records[i]).ok(), "a true one");
  const LogCursor journal{{1, 32}, recipe.U8(), 9}, store{{2, 64}, 3, 4};
  const std::string original = EncodeSnapshot(journal, store, EncodeState(state));
  const RunState true_state = state;
  for (std::size_t i = recipe.Below(4); i > 0; --i) Mutate(state, recipe);
  std::string bytes = EncodeSnapshot(journal, store, EncodeState(state));
  const bool lies = bytes != original;
  const std::string written = bytes;
  for (std::size_t i = recipe.Below(4); i > 0; --i) fuzz::Spoil(bytes, recipe);
  const bool spoiled = bytes != written, fit = recipe.Below(4) != 0;
  if (fit) fuzz::FitChecksum(bytes);
  auto snapshot = DecodeSnapshot(bytes, run.plan());
  THRESHER_CHECK(!snapshot.ok() || fit || !spoiled, "no fitting checksum, and accepted");
  THRESHER_CHECK(snapshot.ok() || spoiled || lies, snapshot.status().ToString());
  if (!snapshot.ok()) return;
  if (!spoiled && !lies) THRESHER_CHECK(snapshot->state == true_state, "another state");
  CheckAgain(*snapshot, run.plan());
  Ask(snapshot->state);
  RunState replayed = snapshot->state;
  while (next < records.size() && Take(replayed, records[next])) ++next;
  if (!snapshot->state.finished()) {
    const Status played = Player(run.config(), std::move(snapshot->state)).GoOn();
    THRESHER_CHECK(played.ok() || spoiled || lies, played.ToString());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Recipe recipe(std::string_view(reinterpret_cast<const char*>(data), size));
  const TrueRun& run = RunOf(recipe.Below(2));
  if (recipe.Below(2) == 0) {
    FuzzJournal(recipe, run);
  } else {
    FuzzSnapshot(recipe, run);
  }
  return 0;
}
