#include "broker/journal_keeper.h"

#include <gtest/gtest.h>

#include "broker/recovery.h"
#include "broker/snapshot.h"
#include "common/data/files.h"
#include "common/data/trajectory_store.h"
#include "tests/unit/broker/long_run.h"

namespace thresher::broker {
namespace {

// 8 groups of 4 samples a step, small segments, a snapshot at almost every checkpoint.
Config ManySteps(const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {"supervised.steps=0", "rl.steps=1000",
                                        "rl.groups=8",        "rl.group_size=4",
                                        "eval.items=0",       "journal.snapshot_records=100"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  Config config = TinyConfig(overrides);
  config.journal.segment_bytes = 16384;
  return config;
}

std::uint64_t Bytes(const std::filesystem::path& folder) {
  std::uint64_t bytes = 0;
  const std::vector<LogSegment> segments = ListLog(folder).value();
  for (const LogSegment& segment : segments) bytes += segment.bytes;
  return bytes;
}

class KeeperTest : public ::testing::Test {
 protected:
  Recovered Restart(const Config& config, const RecoverOptions& options = {}) {
    auto recovered = Recover(folder_.path(), Plan(config), options);
    EXPECT_TRUE(recovered.ok()) << recovered.status().ToString();
    return *std::move(recovered);
  }
  std::filesystem::path Journal() { return folder_.path() / "journal"; }
  std::filesystem::path Store() { return folder_.path() / "trajectories"; }

  TemporaryFolder folder_;
};

TEST_F(KeeperTest, AStartReadsNoMoreHoweverLongTheRun) {
  const Config config = ManySteps();
  LongRun run(folder_.path(), config);
  std::uint64_t most = 0, most_stored = 0;
  for (int step = 0; step < 100; ++step) {
    run.Step(4);
    if (step % 10 != 9) continue;
    const Recovered recovered = Restart(config);
    ASSERT_TRUE(recovered.state == run.state());
    most = std::max(most, recovered.records);
    most_stored = std::max(most_stored, recovered.stored);
  }
  EXPECT_GT(run.records(), 3500u);
  EXPECT_LT(most, 400u) << "a snapshot's distance, and the steps to the next checkpoint";
  EXPECT_LT(most_stored, 400u);
  EXPECT_EQ(ListSnapshots(Journal()).size(), 2u);
  const Recovered all = Restart(config, {.use_snapshots = false});
  EXPECT_EQ(all.records, run.records()) << "the archive has the rest";
  EXPECT_TRUE(all.state == run.state());
}

TEST_F(KeeperTest, OldSegmentsLieInTheArchiveAndADamagedSnapshotCostsNothing) {
  const Config config = ManySteps();
  LongRun run(folder_.path(), config);
  for (int step = 0; step < 60; ++step) run.Step(4);
  std::size_t archived = 0, live = 0;
  const std::vector<LogSegment> segments = ListLog(Journal()).value();
  for (const LogSegment& segment : segments) {
    ++(segment.archived ? archived : live);
  }
  EXPECT_GT(archived, 5u);
  EXPECT_LT(live, 10u);
  const auto snapshots = ListSnapshots(Journal());
  ASSERT_EQ(snapshots.size(), 2u);
  ASSERT_TRUE(WriteFileAtomic(snapshots[1].path, "damaged").ok());
  const Recovered older = Restart(config);
  EXPECT_TRUE(older.state == run.state());
  ASSERT_EQ(older.warnings.size(), 1u);
  EXPECT_NE(older.warnings[0].find(snapshots[1].path.string()), std::string::npos);
  ASSERT_TRUE(WriteFileAtomic(snapshots[0].path, "damaged").ok());
  EXPECT_TRUE(Restart(config).state == run.state()) << "from the first record on";
  run.Close();
  run.Reopen();
  for (int step = 0; step < 20; ++step) run.Step(4);
  EXPECT_TRUE(Restart(config).state == run.state());
}

TEST_F(KeeperTest, TheJournalIsBoundedAndWhatAStartNeedsIsNeverDeleted) {
  const std::uint64_t bound = 50000;
  const Config config = ManySteps({"journal.keep_bytes=" + std::to_string(bound)});
  LongRun run(folder_.path(), config);
  for (int step = 0; step < 120; ++step) run.Step(4);
  EXPECT_LT(Bytes(Journal()), bound + 4 * 16384);
  const LogCursor begin = LogBegin(Journal()).value();
  EXPECT_GT(begin.sequence, 1000u);
  EXPECT_TRUE(Restart(config).state == run.state());
  const auto archived = ListSnapshots(Journal() / "archive");
  ASSERT_FALSE(archived.empty());
  EXPECT_GE(archived.front().sequence, begin.sequence) << "an audit can begin with it";
  const Status folded = Recover(folder_.path(), Plan(config), {.use_snapshots = false}).status();
  EXPECT_EQ(folded.code(), StatusCode::kDataLoss);
  EXPECT_NE(folded.message().find("journal.keep_bytes"), std::string::npos) << folded.ToString();
}

TEST_F(KeeperTest, TrajectoriesAreBoundedAndThoseThatABatchNeedsStay) {
  const std::uint64_t bound = 20000;
  const Config config = ManySteps({"trajectories.keep_bytes=" + std::to_string(bound)});
  LongRun run(folder_.path(), config);
  for (int step = 0; step < 120; ++step) run.Step(4);
  EXPECT_LT(Bytes(Store()), bound + 4 * 16384);
  EXPECT_TRUE(Restart(config).state == run.state());
  auto store = TrajectoryStoreReader::Open(Store()).value();
  EXPECT_TRUE(store->deleted_some());
  for (const TrajectoryId& id : run.state().dedup().Remembered()) {
    ASSERT_TRUE(store->Find(id).ok()) << id.ToString();
  }
  EXPECT_EQ(store->Find(Id(Stream::kTrain, 0, 0)).status().code(), StatusCode::kNotFound);
}

// A checkpoint that never comes keeps everything that was trained since the last one.
TEST_F(KeeperTest, NothingThatIsLiveIsDeletedWhateverTheBound) {
  const Config config = ManySteps({"trajectories.keep_bytes=1", "journal.keep_bytes=1"});
  LongRun run(folder_.path(), config);
  for (int step = 0; step < 20; ++step) run.Step(4);
  for (int step = 0; step < 40; ++step) run.Step(1000);
  for (int step = 0; step < 4; ++step) run.Step(4);
  EXPECT_TRUE(Restart(config).state == run.state());
  auto store = TrajectoryStoreReader::Open(Store()).value();
  for (const TrajectoryId& id : run.state().dedup().Remembered()) {
    ASSERT_TRUE(store->Find(id).ok()) << id.ToString();
  }
}

// The last of them are committed, so nothing is open; but a learner starts again at step 4.
TEST_F(KeeperTest, WhatWasTrainedSinceTheCheckpointMustBeStored) {
  const Config config = ManySteps();
  {
    LongRun run(folder_.path(), config);
    for (int step = 0; step < 6; ++step) run.Step(4);
  }
  std::filesystem::remove_all(Store());
  const Status missing = Recover(folder_.path(), Plan(config)).status();
  EXPECT_EQ(missing.code(), StatusCode::kDataLoss);
  const std::string first = Id(Stream::kTrain, 4 * 8, 0).ToString();
  EXPECT_NE(missing.message().find(first + " was accepted and is not stored"), std::string::npos)
      << missing.ToString();
  const Recovered lazy = Restart(config, {.bytes_may_be_lost = true});
  EXPECT_TRUE(lazy.lost.empty()) << "until somebody asks for them";
}

}  // namespace
}  // namespace thresher::broker
