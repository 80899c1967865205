// journal.mode off: nothing waits for trajectories to be written; actors keep them until they are
// consumed, and what died with a broker comes again.
#include <gtest/gtest.h>

#include <tuple>

#include "broker/recovery.h"
#include "common/data/files.h"
#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

JournalConfig OffConfig(int group_bytes) {
  JournalConfig config = TinyConfig({"journal.mode=off", "journal.compression=none"}).journal;
  config.group_commit_bytes = group_bytes;
  return config;
}

StoredRecord Stored(std::uint64_t item, std::size_t bytes) {
  return {Id(Stream::kTrain, item), H(std::to_string(item)), std::string(bytes, 'x'), {}};
}

std::size_t RecordsIn(const std::filesystem::path& run) {
  std::size_t records = 0;
  EXPECT_TRUE(ReadRecordLog(run / "journal", [&](const LogRecord&) {
                ++records;
                return Status::Ok();
              }).ok());
  return records;
}

TEST(JournalOff, WhatIsBeyondAGroupIsLeftOutAndRecordsAreNot) {
  TemporaryFolder folder;
  auto journal = Journal::Open(folder.path(), OffConfig(100)).value();
  for (std::uint64_t item : {1, 2, 3}) {
    journal->Store(Stored(item, 60));
    journal->Record(Accepted(Id(Stream::kTrain, item)));
  }
  EXPECT_EQ(journal->not_stored(), 2u);
  EXPECT_EQ(journal->aside_bytes(), 60u);
  EXPECT_LT(journal->pending_bytes(), 1000u) << "nobody waits for trajectories";
  ASSERT_TRUE(journal->Commit().ok());
  EXPECT_EQ(RecordsIn(folder.path()), 3u);
  auto store = TrajectoryStoreReader::Open(folder.path() / "trajectories").value();
  EXPECT_TRUE(store->Find(Id(Stream::kTrain, 1)).ok());
  EXPECT_FALSE(store->Find(Id(Stream::kTrain, 2)).ok());
}

TEST(JournalOff, TrajectoriesThatCannotBeWrittenHoldNothingUp) {
  TemporaryFolder folder;
  auto journal = Journal::Open(folder.path(), OffConfig(1000)).value();
  const auto trajectories = folder.path() / "trajectories", aside = folder.path() / "aside";
  std::filesystem::rename(trajectories, aside);
  std::vector<TrajectoryId> placed;
  auto commit = [&](std::uint64_t item) {
    journal->Store(Stored(item, 60));
    journal->Record(Accepted(Id(Stream::kTrain, item)));
    journal->Seal();
    EXPECT_TRUE(journal->Write().ok());
    for (const auto& entry : journal->Finish()) placed.push_back(entry.id);
  };
  for (std::uint64_t item : {1, 2, 3}) commit(item);
  EXPECT_EQ(RecordsIn(folder.path()), 3u);
  EXPECT_EQ(journal->not_stored(), 2u) << "the first is kept for later";
  EXPECT_TRUE(placed.empty());
  std::filesystem::rename(aside, trajectories);
  commit(4);
  EXPECT_EQ(placed, (std::vector{Id(Stream::kTrain, 1), Id(Stream::kTrain, 4)}));
  EXPECT_EQ(journal->not_stored(), 2u);
}

// The next message of this kind that `peer` gets.
template <typename T>
std::optional<T> Hear(FakePeer& peer, milliseconds wait = milliseconds(20000)) {
  while (auto message = peer.Next(wait)) {
    if (const auto* found = std::get_if<T>(&*message)) return *found;
  }
  return std::nullopt;
}

// Works on all that can be had without weights, in uploads of one trajectory; how many.
std::uint64_t UploadSupervised(const ServedRun& served, FakePeer& actor) {
  std::uint64_t uploads = 0;
  for (std::uint64_t request = 1; uploads < 8; ++request) {
    actor.Post(wire::LeaseRequest{request, 4, false, {}});
    const auto grant = Hear<wire::LeaseGrant>(actor);
    for (const wire::Lease& lease : grant ? grant->leases : std::vector<wire::Lease>{}) {
      const Trajectory t = MakeTrajectory(served.config(), Id(lease.stream, lease.item), 1, V(0), 0,
                                          ActorId(0), TestIdentity(served.config()).Hash());
      actor.Post(wire::Upload{++uploads, {lease.fence}, {wire::EncodeTrajectory(t)}});
      const auto ack = Hear<wire::UploadAck>(actor);
      EXPECT_TRUE(ack && ack->verdicts == std::vector{wire::UploadVerdict::kAccepted});
    }
  }
  return uploads;
}

TEST(Off, UploadsAreConsumedWithTheCheckpointThatContainsThem) {
  ServedRun served({"journal.mode=off"});
  FakePeer actor(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 0);
  const auto welcome = Hear<wire::Welcome>(actor);
  ASSERT_TRUE(welcome && welcome->keep_until_consumed);
  ASSERT_EQ(UploadSupervised(served, actor), 8u);
  actor.SetKept({1, 2, 3, 4, 5, 6, 7, 8, 99});
  EXPECT_FALSE(Hear<wire::Consumed>(actor, milliseconds(300)));
  EXPECT_TRUE(ServedRun::Until([&] { return served.Status()["kept"]["samples"] == 8; }));
  EXPECT_EQ(served.Status()["credits"]["in_use_bytes"], 0);

  FakeLearnerOptions options;
  options.stop_after = 2;  // and a checkpoint
  FakeLearner learner(served.config(), served.run(), served.run_id(), options);
  const auto consumed = Hear<wire::Consumed>(actor);
  ASSERT_TRUE(consumed);
  EXPECT_EQ(consumed->uploads, (std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
  const auto again = Hear<wire::Consumed>(actor);  // of what the heartbeat names
  ASSERT_TRUE(again);
  EXPECT_EQ(again->uploads, consumed->uploads);
  EXPECT_TRUE(ServedRun::Until([&] { return served.Status()["kept"]["uploads"] == 0; }));
}

std::string ChainOf(const ServedRun& served) {
  EXPECT_TRUE(ServedRun::Until([&] { return served.Status().value("finished", false); },
                               std::chrono::seconds(60)));
  EXPECT_EQ(served.Status()["faults"]["alarms"], 0) << served.Status()["faults"];
  EXPECT_TRUE(served.Status()["ledger"]["balanced"].get<bool>());
  EXPECT_TRUE(ServedRun::Until([&] { return Exists(served.run() / "summary.json"); }));
  return nlohmann::json::parse(ReadFile(served.run() / "summary.json").value())["final_chain"];
}

const std::vector<std::string> kLonger = {"rl.steps=6", "supervised.steps=4", "checkpoint.every=3"};

std::string UndisturbedChain() {
  static const std::string chain = [] {
    ServedRun served(kLonger);
    FakeActor actor(served.config(), served.run(), served.run_id(), 0);
    FakeLearner learner(served.config(), served.run(), served.run_id());
    return ChainOf(served);
  }();
  return chain;
}

// Most trajectories are in no file, so that they die with the broker.
std::vector<std::string> OffAndForgetful() {
  std::vector<std::string> overrides = kLonger;
  overrides.insert(overrides.end(), {"journal.mode=off", "journal.group_commit_bytes=1"});
  return overrides;
}

TEST(Off, WhatDiesWithABrokerIsSentAgain) {
  ServedRun served(OffAndForgetful());
  FakeActor actor(served.config(), served.run(), served.run_id(), 0);
  FakeActor other(served.config(), served.run(), served.run_id(), 1);
  FakeLearner learner(served.config(), served.run(), served.run_id());
  for (std::uint32_t step : {1u, 4u, 6u, 8u}) {
    ASSERT_TRUE(ServedRun::Until([&] { return learner.steps_done() >= step; })) << step;
    served.Restart();
  }
  EXPECT_EQ(ChainOf(served), UndisturbedChain());
}

TEST(Off, WhatDiesWithABrokerItsActorAndItsLearnerIsGeneratedAgain) {
  ServedRun served(OffAndForgetful());
  auto actor = std::make_unique<FakeActor>(served.config(), served.run(), served.run_id(), 0);
  auto learner = std::make_unique<FakeLearner>(served.config(), served.run(), served.run_id());
  for (std::uint32_t step : {2u, 5u, 9u}) {  // between checkpoints
    ASSERT_TRUE(ServedRun::Until([&] { return learner->steps_done() >= step; })) << step;
    FakeLearnerOptions options;
    // The broker first: else the learner could write a checkpoint that the next one does not know.
    served.Restart([&] {
      std::tie(options.from_step, options.chain) = learner->checkpoint();
      actor.reset();
      learner.reset();
    });
    actor = std::make_unique<FakeActor>(served.config(), served.run(), served.run_id(), 0);
    learner =
        std::make_unique<FakeLearner>(served.config(), served.run(), served.run_id(), options);
  }
  EXPECT_EQ(ChainOf(served), UndisturbedChain());
  EXPECT_NE(served.Events().find("bytes_lost"), std::string::npos);
}

}  // namespace
}  // namespace thresher::broker
