// Every record of a small run is removed, doubled and altered in turn; the audit names it each
// time.
#include "launch/audit.h"

#include <gtest/gtest.h>

#include <fstream>
#include <variant>

#include "broker/snapshot.h"
#include "common/config/plan.h"
#include "common/data/files.h"
#include "tests/unit/launch/run_editor.h"
#include "tests/unit/launch/small_run.h"
#include "tests/unit/launch/temporary_folder.h"

namespace thresher::launch {
namespace {

using wire::JournalRecord;

// What a problem that names the record contains.
struct NameOf {
  std::string operator()(const wire::EpochStarted&) { return "broker"; }
  std::string operator()(const wire::ItemsIssued& r) {
    return r.stream == Stream::kEval ? "round " + std::to_string(r.round)
                                     : "step " + std::to_string(r.step);
  }
  std::string operator()(const wire::SampleAccepted& r) { return r.id.ToString(); }
  std::string operator()(const wire::SampleDropped& r) { return r.id.ToString(); }
  std::string operator()(const wire::BatchComposed& r) { return "step " + std::to_string(r.step); }
  std::string operator()(const wire::StepCommitted& r) { return "step " + std::to_string(r.step); }
  std::string operator()(const wire::VersionPublished& r) { return r.version.ToString(); }
  std::string operator()(const wire::StepsDurable& r) { return r.folder; }
  std::string operator()(const wire::RoundEvaluated& r) {
    return "round " + std::to_string(r.round);
  }
  std::string operator()(const wire::RunFinished&) { return "finished"; }
};

// One changed copy of a record for each of its fields that something else in the run depends on.
// Not among them: the incarnation of a broker, which nothing else knows.
struct Altered {
  using Records = std::vector<JournalRecord>;
  template <typename R, typename... Edits>
  static Records Each(const R& record, Edits... edits) {
    Records out;
    (
        [&] {
          R copy = record;
          edits(copy);
          out.push_back(copy);
        }(),
        ...);
    return out;
  }
  static void Flip(Hash128& hash) { hash.low ^= 1; }

  Records operator()(const wire::EpochStarted& r) {
    return Each(
        r, [](auto& x) { ++x.epoch.value; }, [](auto& x) { Flip(x.run_id); });
  }
  Records operator()(const wire::ItemsIssued& r) {
    return Each(
        r, [](auto& x) { x.stream = Stream::kUser; }, [](auto& x) { ++x.island; },
        [](auto& x) { ++x.first_item; }, [](auto& x) { ++x.items; }, [](auto& x) { ++x.samples; },
        [](auto& x) { ++x.version.step; }, [](auto& x) { ++x.version.lineage; });
  }
  Records operator()(const wire::SampleAccepted& r) {
    return Each(
        r, [](auto& x) { x.id.sample += 100; }, [](auto& x) { Flip(x.content_hash); },
        [](auto& x) { ++x.actor; }, [](auto& x) { ++x.incarnation.value; },
        [](auto& x) { ++x.oldest_version.step; }, [](auto& x) { x.reward += 0.5; },
        [](auto& x) { ++x.loss_tokens; }, [](auto& x) { Flip(x.instance_hash); },
        [](auto& x) { x.outcome = OutcomeKind::kTimedOut; },
        [](auto& x) { x.nondeterministic = true; });
  }
  Records operator()(const wire::SampleDropped& r) {
    return Each(
        r, [](auto& x) { x.id.item += 1000; },
        [](auto& x) { x.reason = wire::DropReason::kDeadline; },
        [](auto& x) { x.reason = wire::DropReason::kNotSelected; }, [](auto& x) { ++x.step; });
  }
  Records operator()(const wire::BatchComposed& r) {
    return Each(
        r, [](auto& x) { ++x.lineage; }, [](auto& x) { x.step += 7; },
        [](auto& x) { Flip(x.digest); }, [](auto& x) { x.ids.pop_back(); },
        [](auto& x) { std::swap(x.ids[0], x.ids[1]); }, [](auto& x) { x.ids[1] = x.ids[0]; },
        [](auto& x) { ++x.loss_tokens; });
  }
  Records operator()(const wire::StepCommitted& r) {
    return Each(
        r, [](auto& x) { ++x.lineage; }, [](auto& x) { x.step += 7; },
        [](auto& x) { Flip(x.batch_digest); }, [](auto& x) { Flip(x.chain); },
        [](auto& x) { Flip(x.state_hash); }, [](auto& x) { ++x.trained_tokens; },
        [](auto& x) { ++x.audited_tokens; }, [](auto& x) { ++x.mismatched_tokens; },
        [](auto& x) { x.retrained = true; });
  }
  Records operator()(const wire::VersionPublished& r) {
    return Each(
        r, [](auto& x) { ++x.version.lineage; }, [](auto& x) { x.version.step += 9; },
        [](auto& x) { Flip(x.hash); }, [](auto& x) { ++x.bytes; });
  }
  Records operator()(const wire::StepsDurable& r) {
    return Each(
        r, [](auto& x) { ++x.lineage; }, [](auto& x) { ++x.step; },
        [](auto& x) { x.folder += "1"; }, [](auto& x) { Flip(x.manifest_hash); },
        [](auto& x) { Flip(x.chain); });
  }
  Records operator()(const wire::RoundEvaluated& r) {
    return Each(
        r, [](auto& x) { x.round += 5; }, [](auto& x) { ++x.version.step; },
        [](auto& x) { Flip(x.digest); }, [](auto& x) { ++x.items; }, [](auto& x) { ++x.samples; });
  }
  Records operator()(const wire::RunFinished& r) {
    return Each(
        r, [](auto& x) { ++x.steps; }, [](auto& x) { Flip(x.final_weights); });
  }
};

class AuditTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SmallRun(run_).Write();
    auto journal = LoadJournal(run_);
    auto store = LoadStore(run_);
    ASSERT_TRUE(journal.ok() && store.ok());
    journal_ = *journal;
    store_ = *store;
  }
  // The journal in small segments, with a snapshot of `state` after its first `length` records.
  LogCursor SaveWithSnapshot(std::size_t length, const broker::RunState& state) {
    std::filesystem::remove_all(run_ / "journal");
    auto log = RecordLogWriter::Open(run_ / "journal", {.segment_bytes = 700});
    EXPECT_TRUE(log.ok());
    LogCursor cursor;
    for (std::size_t i = 0; i < journal_.size(); ++i) {
      auto kind = static_cast<std::uint32_t>(journal_[i].index());
      EXPECT_TRUE(log->Append(kind, wire::EncodeJournalRecord(journal_[i])).ok());
      if (i + 1 == length) cursor = log->end();
    }
    EXPECT_TRUE(log->Flush(false).ok());
    const auto path = broker::SnapshotPath(run_ / "journal", cursor.sequence);
    const std::string bytes = broker::EncodeSnapshot(cursor, {}, broker::EncodeState(state));
    EXPECT_TRUE(WriteFileAtomic(path, bytes).ok());
    return cursor;
  }
  std::vector<std::string> Problems() {
    auto report = AuditRun(run_);
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? report->problems : std::vector<std::string>{};
  }
  void ExpectNamed(const std::string& name, const std::string& what) {
    std::string all;
    bool named = false;
    for (const std::string& problem : Problems()) {
      named |= problem.find(name) != std::string::npos;
      all += "  " + problem + "\n";
    }
    EXPECT_TRUE(named) << what << ": nothing names '" << name << "' in\n" << all;
  }
  void ExpectJournalNamed(const std::vector<JournalRecord>& changed, const JournalRecord& record,
                          const std::string& what) {
    ASSERT_TRUE(SaveJournal(run_, changed).ok());
    ExpectNamed(std::visit(NameOf(), record), what + " " + wire::JournalRecordName(record));
  }
  void ExpectStoreNamed(const std::vector<StoredRecord>& changed, const TrajectoryId& id,
                        const std::string& what) {
    ASSERT_TRUE(SaveStore(run_, changed).ok());
    ExpectNamed(id.ToString(), what);
  }
  static std::ptrdiff_t At(std::size_t i) { return static_cast<std::ptrdiff_t>(i); }

  TemporaryFolder folder_;
  std::filesystem::path run_ = folder_.path() / "run";
  std::vector<JournalRecord> journal_;
  std::vector<StoredRecord> store_;
};

TEST_F(AuditTest, NamesAnyJournalRecordThatIsMissing) {
  for (std::size_t i = 0; i < journal_.size(); ++i) {
    auto changed = journal_;
    changed.erase(changed.begin() + At(i));
    ExpectJournalNamed(changed, journal_[i], "without record " + std::to_string(i));
  }
}

TEST_F(AuditTest, NamesAnyJournalRecordThatStandsTwice) {
  for (std::size_t i = 0; i < journal_.size(); ++i) {
    auto changed = journal_;
    changed.insert(changed.begin() + At(i), journal_[i]);
    ExpectJournalNamed(changed, journal_[i], "doubled record " + std::to_string(i));
  }
}

TEST_F(AuditTest, NamesAnyJournalRecordThatWasAltered) {
  for (std::size_t i = 0; i < journal_.size(); ++i) {
    std::size_t field = 0;
    for (const JournalRecord& altered : std::visit(Altered(), journal_[i])) {
      auto changed = journal_;
      changed[i] = altered;
      ExpectJournalNamed(changed, journal_[i],
                         "field " + std::to_string(field++) + " of record " + std::to_string(i));
    }
  }
}

TEST_F(AuditTest, NamesAnyTrajectoryThatIsMissingOrStandsTwice) {
  for (std::size_t i = 0; i < store_.size(); ++i) {
    auto changed = store_;
    changed.erase(changed.begin() + At(i));
    ExpectStoreNamed(changed, store_[i].id, "removed");
    changed = store_;
    changed.push_back(store_[i]);
    ExpectStoreNamed(changed, store_[i].id, "doubled");
  }
}

TEST_F(AuditTest, NamesATrajectoryThatWasAltered) {
  const std::vector<std::function<void(Trajectory&)>> edits = {
      [](Trajectory& t) { t.tokens[4] ^= 1; },
      [](Trajectory& t) {
        if (!t.logprobs.empty())
          t.logprobs[0] = -0.125f;
        else
          t.tokens[5] ^= 1;
      },
      [](Trajectory& t) { t.outcome.reward += 1; },
      [](Trajectory& t) { t.text = "other"; },
      [](Trajectory& t) { t.actor = ActorId(9); },
      [](Trajectory& t) { t.incarnation = Incarnation(99); },
      [](Trajectory& t) {
        t.run_identity = {8, 8};
      },
      [](Trajectory& t) { t.segments[1].in_loss = false; }};
  for (std::size_t i = 1; i < store_.size(); i += 3) {
    for (const auto& edit : edits) {
      auto changed = store_;
      ASSERT_TRUE(EditTrajectory(changed[i], edit).ok());
      ExpectStoreNamed(changed, store_[i].id, "altered");
    }
  }
}

TEST_F(AuditTest, SeesATrajectoryUnderAnotherId) {
  auto changed = store_;
  changed[3].id.item += 500;
  ExpectStoreNamed(changed, changed[3].id, "renamed");
}

TEST_F(AuditTest, NamesWeightsThatWereAltered) {
  std::ofstream(run_ / "weights" / "0.3.safetensors", std::ios::app) << "x";
  ExpectNamed("0.3.safetensors", "weights");
}

TEST_F(AuditTest, PassesOverWeightsThatRetentionDeleted) {
  std::filesystem::remove(run_ / "weights" / "0.2.safetensors");
  EXPECT_EQ(Problems(), std::vector<std::string>{});
}

TEST_F(AuditTest, NamesACheckpointThatWasAltered) {
  std::ofstream(run_ / "checkpoints/step_000002/model.safetensors", std::ios::app) << "x";
  ExpectNamed("step_000002", "checkpoint");
}

// Of a run whose older records were deleted behind a snapshot, at every record there is.
TEST_F(AuditTest, BeginsWithTheOldestSnapshotWhereOlderRecordsWereDeleted) {
  const Plan plan(LoadConfig(run_ / "config.yaml", {}));
  const AuditReport whole = AuditRun(run_).value();
  broker::RunState state(plan);
  int deleted = 0;
  for (std::size_t length = 1; length < journal_.size(); ++length) {
    const Status applied = state.Apply(journal_[length - 1]);
    ASSERT_TRUE(applied.ok()) << applied.ToString();
    const LogCursor cursor = SaveWithSnapshot(length, state);
    if (cursor.position.segment == 1) continue;
    ASSERT_TRUE(DeleteSegmentsBefore(run_ / "journal", cursor.position.segment).ok());
    ++deleted;
    auto report = AuditRun(run_);
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    EXPECT_EQ(report->problems, std::vector<std::string>{}) << "from record " << length << " on";
    EXPECT_EQ(report->first_record, length);
    for (std::size_t s = 0; s < whole.streams.size(); ++s) {
      EXPECT_EQ(report->streams[s].issued, whole.streams[s].issued);
      EXPECT_EQ(report->streams[s].trained, whole.streams[s].trained);
      EXPECT_EQ(report->streams[s].evaluated, whole.streams[s].evaluated);
      EXPECT_EQ(report->streams[s].dropped, whole.streams[s].dropped);
      EXPECT_EQ(report->streams[s].held, whole.streams[s].held);
    }
  }
  EXPECT_GT(deleted, 10);
  std::filesystem::remove(broker::ListSnapshots(run_ / "journal").front().path);
  ExpectNamed("no snapshot is left to begin with", "snapshot");
}

TEST_F(AuditTest, CountsHeldOutInstancesThatWereTrainedOn) {
  // An evaluated sample and its record both say the instance that train item 0 has.
  auto journal = journal_;
  for (std::size_t i = 0; i < store_.size(); ++i) {
    if (store_[i].id.stream != Stream::kEval) continue;
    ASSERT_TRUE(EditTrajectory(store_[i], [](Trajectory& t) { t.instance_hash = {1, 1}; }).ok());
    for (auto& record : journal) {
      auto* accepted = std::get_if<wire::SampleAccepted>(&record);
      if (accepted != nullptr && accepted->id == store_[i].id) {
        accepted->instance_hash = {1, 1};
        accepted->content_hash = store_[i].content_hash;
      }
    }
    break;
  }
  ASSERT_TRUE(SaveStore(run_, store_).ok() && SaveJournal(run_, journal).ok());
  auto report = AuditRun(run_);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->heldout_overlap, 1u);
  ExpectNamed("evaluated instances were trained on", "overlap");
}

TEST_F(AuditTest, ARunThatGoesOnIsSound) {
  std::filesystem::remove(run_ / "summary.json");
  for (std::size_t length = 1; length < journal_.size(); ++length) {
    std::vector<JournalRecord> so_far(journal_.begin(), journal_.begin() + At(length));
    ASSERT_TRUE(SaveJournal(run_, so_far).ok());
    std::vector<StoredRecord> stored;  // bytes come before the record that accepts them
    for (std::size_t i = 0; i < length; ++i) {
      auto* accepted = std::get_if<wire::SampleAccepted>(&journal_[i]);
      if (accepted != nullptr) stored.push_back(store_[stored.size()]);
    }
    ASSERT_TRUE(SaveStore(run_, stored).ok());
    EXPECT_EQ(Problems(), std::vector<std::string>{}) << "after " << length << " records";
  }
}

TEST_F(AuditTest, NamesDamageOfTheJournal) {
  auto file = run_ / "journal" / "000001.log";
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekp(100);
  bytes << "xxxx";
  bytes.close();
  ExpectNamed("journal", "damage");
}

TEST(AuditRunTest, NeedsARunDirectory) {
  TemporaryFolder folder;
  EXPECT_EQ(AuditRun(folder.path()).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace thresher::launch
