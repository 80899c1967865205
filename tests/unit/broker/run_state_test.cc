#include "broker/run_state.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "broker/batcher.h"
#include "broker/recovery.h"
#include "broker/snapshot.h"
#include "broker/work_source.h"
#include "common/data/byte_order.h"
#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

// What a state would say that forgets nothing: all records, in maps.
class Everything {
 public:
  void Apply(const wire::JournalRecord& record) {
    std::visit([this](const auto& r) { On(r); }, record);
  }

  void Compare(const RunState& state) const {
    ASSERT_EQ(state.committed_steps(), commits_.size());
    ASSERT_EQ(state.durable_steps(), durable_.empty() ? 0 : *durable_.rbegin());
    ASSERT_EQ(state.remembered_from(), RememberedFrom());
    ASSERT_EQ(state.accepted(), accepted_.size());
    ASSERT_EQ(state.published_versions(), published_.size());
    for (const auto& [unit, issued] : issued_) ASSERT_TRUE(state.IssuedUnit(unit));
    ASSERT_FALSE(state.IssuedUnit({false, 1000}));
    CompareSteps(state);
    CompareSamples(state);
  }

 private:
  // The durable checkpoint before the last one: a learner may have to start there.
  std::uint32_t RememberedFrom() const {
    return durable_.size() < 2 ? 0 : *std::next(durable_.rbegin());
  }
  bool Settled(const UnitKey& unit) const {
    return unit.evaluation ? forgotten_rounds_.contains(unit.number)
                           : unit.number < RememberedFrom();
  }

  void CompareSteps(const RunState& state) const {
    Hash128 chain;
    for (std::uint32_t step = 0; step <= commits_.size(); ++step) {
      if (step >= RememberedFrom()) {
        ASSERT_EQ(state.ChainBefore(step), chain);
      }
      if (step < commits_.size()) chain = wire::HashChain(chain, batches_.at(step).digest);
    }
    for (const auto& [step, batch] : batches_) {
      const bool kept = step >= RememberedFrom();
      ASSERT_EQ(state.Batch(step) != nullptr, kept) << "step " << step;
      if (!kept) continue;
      ASSERT_EQ(*state.Batch(step), batch);
      if (step < commits_.size()) {
        ASSERT_EQ(*state.Commit(step), commits_.at(step));
      }
    }
    for (const auto& [version, record] : published_) {
      if (version.step < RememberedFrom()) continue;
      ASSERT_EQ(*state.Published(version), record);
    }
  }

  void CompareSamples(const RunState& state) const {
    std::size_t remembered = 0;
    for (const auto& [unit, issued] : issued_) {
      for (std::uint64_t i = 0; i < std::uint64_t{issued.items} * issued.samples; ++i) {
        const TrajectoryId id{issued.stream, issued.island, issued.first_item + i / issued.samples,
                              static_cast<std::uint32_t>(i % issued.samples)};
        auto first = accepted_.find(id);
        const bool known = first != accepted_.end();
        remembered += known && !Settled(unit);
        Dedup::Verdict equal = known ? Dedup::Verdict::kDuplicate : Dedup::Verdict::kNew;
        Dedup::Verdict other = known ? Dedup::Verdict::kConflict : Dedup::Verdict::kNew;
        if (Settled(unit)) equal = other = Dedup::Verdict::kDuplicate;
        ASSERT_EQ(state.dedup().Judge(id, known ? first->second : H("x")), equal);
        ASSERT_EQ(state.dedup().Judge(id, H("else")), other) << id.ToString();
      }
    }
    ASSERT_EQ(state.dedup().remembered(), remembered) << "what is settled takes no room";
  }

  void On(const wire::ItemsIssued& r) { issued_[UnitOf(r)] = r; }
  void On(const wire::SampleAccepted& r) { accepted_[r.id] = r.content_hash; }
  void On(const wire::BatchComposed& r) { batches_[r.step] = r; }
  void On(const wire::StepCommitted& r) {
    if (!r.retrained) commits_[r.step] = r;
  }
  void On(const wire::VersionPublished& r) { published_[r.version] = r; }
  void On(const wire::RoundEvaluated& r) { evaluated_.insert(r.round); }
  void On(const wire::StepsDurable& r) {
    if (durable_.insert(r.step).second) forgotten_rounds_ = evaluated_;
  }
  void On(const auto&) {}

  std::map<UnitKey, wire::ItemsIssued> issued_;
  std::map<TrajectoryId, Hash128> accepted_;
  std::map<std::uint32_t, wire::BatchComposed> batches_;
  std::map<std::uint32_t, wire::StepCommitted> commits_;
  std::map<PolicyVersion, wire::VersionPublished> published_;
  std::set<std::uint32_t> evaluated_, forgotten_rounds_, durable_;
};

// Drives a run with random arrivals, drops and restarts, writing every record to a real journal,
// and checks after every event what must always hold.
class RandomRun {
 public:
  RandomRun(unsigned seed, const std::filesystem::path& folder)
      : random_(seed), folder_(folder), state_(Plan(config_)) {}

  void Go() {
    Apply(wire::EpochStarted{BrokerEpoch(1), Incarnation(1), {}, {}});
    for (int event = 0; event < 20000 && !state_.finished(); ++event) Event();
    ASSERT_TRUE(state_.finished()) << "the run got stuck";
    StreamCounts total = state_.ledger().Total();
    EXPECT_EQ(total.HeldTotal(), 0u);
    EXPECT_EQ(total.issued, total.trained + total.evaluated + total.DroppedTotal());
    EXPECT_EQ(state_.heldout_overlap(), 0u);
    Restore();
  }

 private:
  void Event() {
    for (const auto& issued : WorkSource(config_).Issuable(state_)) Apply(issued);
    unsigned kind = random_() % 40;
    if (kind == 0) return Restore();
    if (kind < 30) return Arrive();
    Progress();
  }

  // A random sample of an open unit arrives, or is dropped.
  void Arrive() {
    std::vector<TrajectoryId> waiting;
    for (const auto& [key, unit] : state_.groups().units()) {
      state_.groups().ForEach(key, [&](const TrajectoryId& id, const Slot& slot) {
        if (slot.state == Slot::State::kIssued) waiting.push_back(id);
      });
    }
    if (waiting.empty()) return;
    TrajectoryId id = waiting[random_() % waiting.size()];
    if (random_() % 12 == 0) {
      std::uint32_t step = state_.groups().FindGroup(GroupOf(id))->unit.number;
      Apply(wire::SampleDropped{id, wire::DropReason::kDeadline, step});
      return;
    }
    Apply(Accepted(id, random_() % 2));
    Dedup::Verdict again = state_.dedup().Judge(id, Accepted(id).content_hash);
    ASSERT_EQ(again, Dedup::Verdict::kDuplicate);
    ASSERT_EQ(state_.dedup().Judge(id, H("else")), Dedup::Verdict::kConflict);
  }

  void Progress() {
    std::vector<UnitKey> complete;
    for (const auto& [key, unit] : state_.groups().units()) {
      if (unit.outstanding == 0) complete.push_back(key);
    }
    for (const UnitKey& unit : complete) {
      if (unit.evaluation) {
        Apply(wire::RoundEvaluated{unit.number, state_.groups().FindUnit(unit)->issued.version,
                                   RoundDigest(state_.groups(), unit.number), 0, 0});
      } else if (state_.Batch(unit.number) == nullptr) {
        Compose(unit.number);
      }
    }
    std::uint32_t step = state_.committed_steps();
    if (state_.Batch(step) != nullptr && random_() % 2 == 0) Commit(step, false);
    if (step > 0 && random_() % 8 == 0) Commit(step - 1, true);
    step = state_.committed_steps();
    if (state_.plan().IsPublished(step) && state_.Published(V(step)) == nullptr) {
      Apply(wire::VersionPublished{V(step), H("w" + std::to_string(step)), 1});
    }
    if (step > state_.durable_steps() && random_() % 3 == 0) {
      Apply(wire::StepsDurable{0, step, "checkpoints/x", H("m"), state_.ChainBefore(step)});
    }
    if (step == state_.plan().total_steps() &&
        state_.evals().size() == state_.plan().evals().size()) {
      Apply(wire::RunFinished{step, H("final")});
    }
  }

  void Compose(std::uint32_t step) {
    Composition whole = ComposeBatch(state_.groups(), state_.plan().Step(step), 0, true);
    for (const auto& drop : whole.drops) {
      Apply(drop);
      if (random_() % 5 == 0) Restore();  // a death in the middle of a composition
    }
    Composition rest = ComposeBatch(state_.groups(), state_.plan().Step(step), 0, true);
    ASSERT_EQ(rest.batch.digest, whole.batch.digest);
    Apply(rest.batch);
  }

  void Commit(std::uint32_t step, bool retrained) {
    Hash128 digest = state_.Batch(step)->digest;
    Hash128 chain = wire::HashChain(state_.ChainBefore(step), digest);
    Apply(wire::StepCommitted{0, step, digest, chain, H("state" + std::to_string(step)), 5, 5, 0,
                              retrained});
  }

  void Apply(const wire::JournalRecord& record) {
    Status applied = state_.Apply(record);
    ASSERT_TRUE(applied.ok()) << applied.ToString();
    written_.push_back(record);
    all_.push_back(record);
    everything_.Apply(record);
    everything_.Compare(state_);
    Status balanced = state_.ledger().Check(state_.groups().CountHeld());
    ASSERT_TRUE(balanced.ok()) << balanced.ToString();
  }

  // The broker dies and a new one reads the journal: the same state, from bytes on disk.
  void Restore() {
    auto log = RecordLogWriter::Open(folder_ / "journal", {});
    ASSERT_TRUE(log.ok()) << log.status().ToString();
    auto store = TrajectoryStoreWriter::Open(folder_ / "trajectories", {});
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    std::vector<StoredRecord> block;
    for (const auto& record : written_) {
      ASSERT_TRUE(
          log->Append(static_cast<std::uint32_t>(record.index()), wire::EncodeJournalRecord(record))
              .ok());
      if (const auto* a = std::get_if<wire::SampleAccepted>(&record)) {
        block.push_back({a->id, a->content_hash, "bytes of " + a->id.ToString()});
      }
    }
    ASSERT_TRUE(block.empty() || (*store)->AppendBlock(block).ok());
    ASSERT_TRUE((*store)->Flush(false).ok());
    ASSERT_TRUE(log->Flush(false).ok());
    written_.clear();
    auto recovered = Recover(folder_, Plan(config_));
    ASSERT_TRUE(recovered.ok()) << recovered.status().ToString();
    ASSERT_TRUE(recovered->orphans.empty());
    ASSERT_TRUE(recovered->state == state_);
    auto folded = Recover(folder_, Plan(config_), {.use_snapshots = false});
    ASSERT_TRUE(folded.ok()) << folded.status().ToString();
    ASSERT_TRUE(folded->state == state_);
    ASSERT_LE(recovered->records, folded->records);
    ASSERT_TRUE(recovered->places == folded->places);
    ExpectPlaces(recovered->places);
    state_ = std::move(recovered->state);
    if (random_() % 2 == 0) WriteSnapshot(log->end(), (*store)->end());
  }

  // Of every sample that a batch may be asked for: its own bytes lie there.
  void ExpectPlaces(const std::vector<TrajectoryStoreReader::Entry>& places) {
    std::set<TrajectoryId> placed;
    if (!places.empty()) {
      auto read = ReadTrajectories(folder_ / "trajectories", places);
      ASSERT_TRUE(read.ok()) << read.status().ToString();
      for (std::size_t i = 0; i < places.size(); ++i) {
        ASSERT_EQ((*read)[i], "bytes of " + places[i].id.ToString());
        placed.insert(places[i].id);
      }
    }
    for (std::uint32_t step = state_.durable_steps(); state_.Batch(step) != nullptr; ++step) {
      for (const TrajectoryId& id : state_.Batch(step)->ids) {
        ASSERT_TRUE(placed.contains(id)) << id.ToString() << " of step " << step;
      }
    }
  }

  // Which the next restore begins with; some are damaged, and the one before is used.
  void WriteSnapshot(const LogCursor& journal, const LogCursor& store) {
    std::string bytes = EncodeSnapshot(journal, store, EncodeState(state_));
    if (random_() % 3 == 0) bytes[random_() % bytes.size()] ^= 1;
    if (random_() % 7 == 0) bytes.resize(random_() % bytes.size());
    ASSERT_TRUE(WriteFileAtomic(SnapshotPath(folder_ / "journal", journal.sequence), bytes).ok());
  }

  Config config_ = TinyConfig({"rl.steps=8", "rl.groups=4", "rl.group_size=3", "eval.every=2"});
  std::mt19937 random_;
  std::filesystem::path folder_;
  RunState state_;
  std::vector<wire::JournalRecord> written_, all_;
  Everything everything_;

 public:
  const Config& config() const { return config_; }
  const std::vector<wire::JournalRecord>& records() const { return all_; }
};

TEST(RunState, IsRebuiltFromItsJournalAtAnyPointOfRandomRuns) {
  for (unsigned seed = 0; seed < 25; ++seed) {
    TemporaryFolder folder;
    RandomRun(seed, folder.path()).Go();
    if (::testing::Test::HasFatalFailure()) FAIL() << "seed " << seed;
  }
}

TEST(RunState, ASnapshotAtAnyRecordAndTheRecordsBehindItGiveTheSameState) {
  TemporaryFolder folder;
  RandomRun run(100, folder.path());
  run.Go();
  RunState state{Plan(run.config())};
  std::vector<RunState> restored;  // one from a snapshot after each record so far
  for (std::size_t i = 0; i < run.records().size(); ++i) {
    const wire::JournalRecord& record = run.records()[i];
    ASSERT_TRUE(state.Apply(record).ok());
    for (RunState& other : restored) ASSERT_TRUE(other.Apply(record).ok());
    const LogCursor cursor{{1, i}, i + 1, i};
    auto snapshot =
        DecodeSnapshot(EncodeSnapshot(cursor, {}, EncodeState(state)), Plan(run.config()));
    ASSERT_TRUE(snapshot.ok()) << snapshot.status().ToString();
    ASSERT_EQ(snapshot->journal, cursor);
    ASSERT_TRUE(snapshot->state == state) << "after record " << i;
    restored.push_back(std::move(snapshot->state));
  }
  for (const RunState& other : restored) ASSERT_TRUE(other == state);
}

TEST(RunState, ASnapshotThatIsNotWholeIsRefusedAndNeverCrashes) {
  TemporaryFolder folder;
  RandomRun run(7, folder.path());
  run.Go();
  RunState state{Plan(run.config())};
  for (std::size_t i = 0; i < run.records().size() / 2; ++i) {
    ASSERT_TRUE(state.Apply(run.records()[i]).ok());
  }
  const std::string bytes = EncodeSnapshot({}, {}, EncodeState(state));
  for (std::size_t i = 0; i < bytes.size(); i += 1 + bytes.size() / 500) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    EXPECT_EQ(DecodeSnapshot(damaged, state.plan()).status().code(), StatusCode::kDataLoss);
    EXPECT_FALSE(DecodeSnapshot(bytes.substr(0, i), state.plan()).ok());
  }
  // With a right checksum over wrong fields: malformed, or another state, but no harm.
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = bytes.substr(0, bytes.size() - 8);
    damaged[16 + random() % (damaged.size() - 16)] = static_cast<char>(random());
    AppendLittle<std::uint64_t>(damaged, HashBytes64(AsBytes(damaged)));
    (void)DecodeSnapshot(damaged, state.plan()).ok();
  }
}

class RunStateTest : public ::testing::Test {
 protected:
  Config config_ = TinyConfig();
  RunState state_{Plan(config_)};
  StepPlan step_ = state_.plan().Step(0);
};

// What the held-out watch is asked later would be undefined.
TEST_F(RunStateTest, ASnapshotWhoseWatchIsHalvedTooOftenIsRefused) {
  std::string bytes = EncodeSnapshot({}, {}, EncodeState(state_));
  bytes.resize(bytes.size() - 8);
  const std::size_t halvings = bytes.size() - 8 - 8 - 4;  // before the overlap and an empty map
  for (const char value : {63, 64}) {
    std::string changed = bytes;
    changed[halvings] = value;
    AppendLittle<std::uint64_t>(changed, HashBytes64(AsBytes(changed)));
    EXPECT_EQ(DecodeSnapshot(changed, state_.plan()).ok(), value == 63);
  }
}

TEST_F(RunStateTest, RecordsThatContradictTheStateAreRefused) {
  ASSERT_TRUE(state_.Apply(Issued(step_, V(0))).ok());
  EXPECT_FALSE(state_.Apply(Issued(step_, V(0))).ok()) << "issued twice";
  EXPECT_FALSE(state_.Apply(Accepted(Id(Stream::kSupervised, 99))).ok()) << "never issued";
  StepPlan beyond = step_;
  beyond.step = state_.plan().total_steps();
  beyond.first_item = 1000;
  EXPECT_FALSE(state_.Apply(Issued(beyond, V(0))).ok()) << "of no step";
  ASSERT_TRUE(state_.Apply(Accepted(Id(Stream::kSupervised, 0))).ok());
  EXPECT_FALSE(state_.Apply(Accepted(Id(Stream::kSupervised, 0))).ok()) << "accepted twice";
  EXPECT_FALSE(state_.Apply(wire::StepCommitted{0, 0, H("x"), {}, {}, 0, 0, 0, false}).ok());
  EXPECT_FALSE(state_.Apply(wire::RoundEvaluated{0, V(2), {}, 3, 2}).ok());
  EXPECT_FALSE(state_.Apply(wire::StepsDurable{0, 1, "c", {}, {}}).ok());
  EXPECT_FALSE(state_.Apply(wire::RunFinished{4, {}}).ok());
  ASSERT_TRUE(state_.Apply(wire::BatchComposed{0, 1, H("empty"), {}, 0}).ok());
  ASSERT_TRUE(state_.Apply(wire::BatchComposed{0, 0, H("none"), {}, 0}).ok());
  ASSERT_TRUE(state_.Apply(wire::StepCommitted{0, 0, H("none"), {}, {}, 0, 0, 0, false}).ok());
  EXPECT_FALSE(state_.Apply(wire::StepCommitted{0, 1, H("empty"), {}, {}, 0, 0, 0, false}).ok())
      << "of a step that was never issued";
}

TEST_F(RunStateTest, ARetrainedStepMustReachTheRecordedState) {
  ASSERT_TRUE(state_.Apply(Issued(step_, V(0))).ok());
  std::vector<TrajectoryId> ids;
  for (std::uint64_t item = 0; item < step_.items; ++item) {
    ids.push_back(Id(Stream::kSupervised, item));
    ASSERT_TRUE(state_.Apply(Accepted(ids.back())).ok());
  }
  ASSERT_TRUE(state_.Apply(wire::BatchComposed{0, 0, H("d"), ids, 1}).ok());
  wire::StepCommitted done{0, 0, H("d"), H("c"), H("s"), 9, 9, 0, false};
  ASSERT_TRUE(state_.Apply(done).ok());
  done.retrained = true;
  EXPECT_TRUE(state_.Apply(done).ok());
  EXPECT_EQ(state_.trained_tokens(), 9u) << "trained once, whatever was recovered";
  EXPECT_EQ(state_.ledger().Total().trained, 4u);
  done.state_hash = H("other");
  EXPECT_FALSE(state_.Apply(done).ok());
}

TEST_F(RunStateTest, SeesAnInstanceThatIsTrainedAndEvaluated) {
  ASSERT_TRUE(state_.Apply(Issued(step_, V(0))).ok());
  ASSERT_TRUE(state_.Apply(Issued(state_.plan().evals()[0])).ok());
  auto trained = Accepted(Id(Stream::kSupervised, 0));
  auto evaluated = Accepted(Id(Stream::kEval, 0, 0));
  ASSERT_TRUE(state_.Apply(trained).ok());
  ASSERT_TRUE(state_.Apply(evaluated).ok());
  EXPECT_EQ(state_.heldout_overlap(), 0u);
  auto leaked = Accepted(Id(Stream::kEval, 1, 0));
  leaked.instance_hash = trained.instance_hash;
  ASSERT_TRUE(state_.Apply(leaked).ok());
  auto again = Accepted(Id(Stream::kEval, 1, 1));
  again.instance_hash = trained.instance_hash;
  ASSERT_TRUE(state_.Apply(again).ok());
  EXPECT_EQ(state_.heldout_overlap(), 1u) << "counted per instance";
}

}  // namespace
}  // namespace thresher::broker
