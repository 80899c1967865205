// The broker's state as its files give it back: the records of a journal, some of them spoiled,
// left out or said again, and snapshots, spoiled, with a checksum that fits. The input is the
// recipe (frame_mutation.h). What does not fit is refused, at the latest by the ledger's
// check, and a snapshot that is taken gives the same one again.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "broker/batcher.h"
#include "broker/snapshot.h"
#include "common/base/check.h"
#include "tests/fuzz/wire/frame_mutation.h"
#include "tests/unit/broker/support.h"

namespace {

using namespace thresher;  // NOLINT: one file, one purpose
using namespace thresher::broker;
using fuzz::Recipe;

// What a broker would take memory for, because it is its own record that says so.
constexpr std::uint64_t kMostSamples = 4096;

// The records of a whole run.
class TrueRun {
 public:
  explicit TrueRun(const std::vector<std::string>& more) : plan_(TinyConfig(more)), state_(plan_) {
    Record(wire::EpochStarted{BrokerEpoch(1), Incarnation(1), H("run"), H("identity")});
    Publish(0);
    for (std::uint32_t step = 0; step < plan_.total_steps(); ++step) Train(plan_.Step(step));
    Record(wire::RunFinished{plan_.total_steps(), H("weights")});
  }
  const Plan& plan() const { return plan_; }
  const std::vector<wire::JournalRecord>& records() const { return records_; }

 private:
  void Record(const wire::JournalRecord& record) {
    const Status applied = state_.Apply(record);
    THRESHER_CHECK(applied.ok(), applied.ToString());
    records_.push_back(record);
  }
  void Publish(std::uint32_t step) {
    if (!plan_.IsPublished(step)) return;
    Record(wire::VersionPublished{V(step), H("weights"), 1});
    for (const EvalRound& round : plan_.evals()) {
      if (round.version == V(step)) Evaluate(round);
    }
  }
  void Fill(const wire::ItemsIssued& issued) {
    Record(issued);
    for (std::uint64_t item = issued.first_item; item < issued.first_item + issued.items; ++item) {
      for (std::uint32_t sample = 0; sample < issued.samples; ++sample) {
        const TrajectoryId id{issued.stream, issued.island, item, sample};
        if (item % 7 == 5) {
          Record(wire::SampleDropped{id, wire::DropReason::kGraderFailure, issued.step});
        } else {
          Record(Accepted(id, item % 3 == 1 ? 0 : sample % 2));
        }
      }
    }
  }
  void Evaluate(const EvalRound& round) {
    Fill(Issued(round));
    Record(wire::RoundEvaluated{round.round, round.version,
                                RoundDigest(state_.groups(), round.round), round.items,
                                round.samples});
  }
  void Train(const StepPlan& step) {
    for (std::uint32_t round = 0; round < step.rounds; ++round) {
      wire::ItemsIssued issued = Issued(step, step.phase == Phase::kRl ? V(step.step) : V(0));
      issued.first_item = step.FirstItem(round);
      issued.round = round;
      Fill(issued);
      if (StageOf(state_.groups(), step) != StepStage::kNextRound) break;
    }
    const Composition composed = ComposeBatch(state_.groups(), step, 0, true);
    for (const wire::SampleDropped& drop : composed.drops) Record(drop);
    Record(composed.batch);
    const Hash128 digest = composed.batch.digest;
    const Hash128 chain = wire::HashChain(state_.ChainBefore(step.step), digest);
    Record(wire::StepCommitted{0, step.step, digest, chain, H("state"), 5, 5, 0, false});
    if (step.checkpoint_after) {
      Record(wire::StepsDurable{0, step.step + 1, "checkpoints/x", H("manifest"), chain});
    }
    Publish(step.step + 1);
  }

  Plan plan_;
  RunState state_;
  std::vector<wire::JournalRecord> records_;
};

const TrueRun& RunOf(std::size_t number) {
  static const TrueRun runs[] = {
      TrueRun({"rl.steps=5"}),
      TrueRun({"rl.steps=4", "rl.dynamic_sampling=true", "rl.max_rounds=3"})};
  return runs[number];
}

bool Affordable(const wire::JournalRecord& record) {
  const auto* issued = std::get_if<wire::ItemsIssued>(&record);
  return issued == nullptr || std::uint64_t{issued->items} * issued->samples <= kMostSamples;
}

// False when the state is not to be used any more.
bool Take(RunState& state, const wire::JournalRecord& record) {
  if (!Affordable(record) || !state.Apply(record).ok()) return false;
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

void FuzzSnapshot(Recipe& recipe, const TrueRun& run) {
  RunState state(run.plan());
  const auto& records = run.records();
  std::size_t next = recipe.Below(records.size() + 1);
  for (std::size_t i = 0; i < next; ++i) THRESHER_CHECK(state.Apply(records[i]).ok(), "a true one");
  const LogCursor journal{{1, 32}, recipe.U8(), 9}, store{{2, 64}, 3, 4};
  const std::string original = EncodeSnapshot(journal, store, EncodeState(state));
  std::string bytes = original;
  for (std::size_t i = recipe.Below(4); i > 0; --i) fuzz::Spoil(bytes, recipe);
  const bool spoiled = bytes != original, fit = recipe.Below(4) != 0;
  if (fit) fuzz::FitChecksum(bytes);
  auto snapshot = DecodeSnapshot(bytes, run.plan());
  THRESHER_CHECK(!snapshot.ok() || fit || !spoiled, "no fitting checksum, and accepted");
  THRESHER_CHECK(snapshot.ok() || spoiled, snapshot.status().ToString());
  if (!snapshot.ok()) return;
  if (!spoiled) THRESHER_CHECK(snapshot->state == state, "another state");
  const std::string encoded =
      EncodeSnapshot(snapshot->journal, snapshot->store, EncodeState(snapshot->state));
  const auto again = DecodeSnapshot(encoded, run.plan());
  THRESHER_CHECK(again.ok(), again.status().ToString());
  const RunState same = snapshot->state;  // not equal to itself: a spoiled reward is no number
  const bool numbers = same == snapshot->state;
  THRESHER_CHECK(!numbers || again->state == same, "a state that changes");
  // Who goes on from a state that lies under a fitting checksum is not safe.
  for (; !spoiled && next < records.size(); ++next) {
    if (!Affordable(records[next]) || !snapshot->state.Apply(records[next]).ok()) return;
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
