#include "broker/broker_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <tuple>

#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"
#include "tests/support/moved_files.h"
#include "tests/unit/broker/fake_peers.h"

namespace thresher::broker {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;

// A run directory, and a broker on a thread that can be ended like a killed process.
class Farm {
 public:
  // `segment_bytes`: less than the configuration allows.
  explicit Farm(std::vector<std::string> overrides = {}, int segment_bytes = 0)
      : config_(TinyConfig(overrides)) {
    if (segment_bytes > 0) config_.journal.segment_bytes = segment_bytes;
    std::ofstream(run() / "manifest.json") << R"({"run_id": ")" << run_id().ToString() << "\"}";
  }
  ~Farm() {
    if (thread_.joinable()) Kill();
    net::RemoveSocketFolder(run());
  }

  const std::filesystem::path& run() const { return folder_.path(); }
  BrokerOptions options() const {
    BrokerOptions options;
    options.run = run();
    return options;
  }
  Hash128 run_id() const { return H("the run"); }
  const Config& config() const { return config_; }
  BrokerLoop& loop() { return *loop_; }
  int exit_code() const { return exit_code_.load(); }

  void StartBroker() {
    auto started = BrokerLoop::Start(options(), config_, SystemClock());
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    loop_ = std::move(started).value();
    exit_code_ = -1;
    thread_ = std::jthread([this] { exit_code_ = loop_->Run(); });
  }
  void Kill() {
    loop_->Abandon();
    thread_.join();
    loop_.reset();
  }
  // Waits for the broker to end by itself.
  bool Finish(milliseconds patience = milliseconds(60000)) {
    if (!Until([&] { return exit_code_.load() >= 0; }, patience)) return false;
    thread_.join();
    return true;
  }
  Json Status() {
    auto token = net::LoadOrCreateToken(run().string());
    auto text = net::HttpGet(loop_->http_address(), "/status.json", *token, 2000);
    return text.ok() ? Json::parse(*text) : Json();
  }
  Json Summary() { return Json::parse(ReadFile(run() / "summary.json").value()); }

  template <typename Condition>
  static bool Until(Condition&& condition, milliseconds patience = milliseconds(60000)) {
    auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }

 private:
  TemporaryFolder folder_;
  Config config_;
  std::unique_ptr<BrokerLoop> loop_;
  std::atomic<int> exit_code_{-1};
  std::jthread thread_;
};

FakeLearnerOptions StopAfter(std::uint32_t steps) {
  FakeLearnerOptions options;
  options.stop_after = steps;
  return options;
}
FakeLearnerOptions Corrupt(std::uint32_t step) {
  FakeLearnerOptions options;
  options.corrupt_step = step;
  return options;
}

// The chain over all batches of a run with one actor that nothing disturbs.
std::string UndisturbedChain() {
  static const std::string chain = [] {
    Farm farm;
    farm.StartBroker();
    FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
    FakeLearner learner(farm.config(), farm.run(), farm.run_id());
    EXPECT_TRUE(farm.Finish());
    EXPECT_EQ(farm.exit_code(), BrokerLoop::kDone);
    return farm.Summary()["final_chain"].get<std::string>();
  }();
  return chain;
}

TEST(BrokerLoop, CarriesATinyRunToItsEnd) {
  Farm farm;
  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  FakeLearner learner(farm.config(), farm.run(), farm.run_id());
  ASSERT_TRUE(farm.Finish());
  EXPECT_EQ(farm.exit_code(), BrokerLoop::kDone);
  Json summary = farm.Summary();
  EXPECT_EQ(summary["steps"], 4);
  EXPECT_EQ(summary["final"]["newest"], "0.4");
  EXPECT_EQ(summary["mismatched_tokens"], 0);
  EXPECT_EQ(summary["heldout_overlap"], 0);
  EXPECT_EQ(summary["staleness_max"], 0);
  Json total = summary["ledger"]["total"];
  EXPECT_TRUE(summary["ledger"]["balanced"].get<bool>());
  EXPECT_EQ(total["issued"], 2 * 4 + 2 * 6 + 2 * 6);
  EXPECT_EQ(total["evaluated"], 12);
  EXPECT_EQ(total["held_total"], 0);
  ASSERT_EQ(summary["evals"].size(), 2u);
  EXPECT_EQ(summary["evals"][1]["label"], "final");
  EXPECT_TRUE(summary["evals"][0]["pass_at"].contains("2"));
  EXPECT_TRUE(std::filesystem::exists(farm.run() / "weights" / "0.4.safetensors"));
}

TEST(BrokerLoop, ThreeActorsAndDuplicatesGiveTheSameBatches) {
  Farm farm;
  farm.StartBroker();
  FakeActor a(farm.config(), farm.run(), farm.run_id(), 0, 2);
  FakeActor b(farm.config(), farm.run(), farm.run_id(), 1, 1);
  FakeActor c(farm.config(), farm.run(), farm.run_id(), 2);
  FakeLearner learner(farm.config(), farm.run(), farm.run_id());
  ASSERT_TRUE(farm.Finish());
  EXPECT_EQ(farm.Summary()["final_chain"], UndisturbedChain());
}

TEST(BrokerLoop, ABrokerKilledAgainAndAgainLosesNothingAndTrainsNothingTwice) {
  Farm farm({"rl.steps=6", "supervised.steps=4"});
  farm.StartBroker();
  auto actor = std::make_unique<FakeActor>(farm.config(), farm.run(), farm.run_id(), 0);
  FakeActor other(farm.config(), farm.run(), farm.run_id(), 1);
  FakeLearner learner(farm.config(), farm.run(), farm.run_id());
  for (std::uint32_t step : {1u, 3u, 6u, 9u}) {
    ASSERT_TRUE(Farm::Until([&] { return learner.steps_done() >= step; })) << step;
    farm.Kill();
    farm.StartBroker();
    if (step == 6) {  // and an actor with it
      actor.reset();  // first: the newest Hello is the one that counts
      actor = std::make_unique<FakeActor>(farm.config(), farm.run(), farm.run_id(), 0);
    }
  }
  ASSERT_TRUE(farm.Finish());
  Json disturbed = farm.Summary();

  Farm calm({"rl.steps=6", "supervised.steps=4"});
  calm.StartBroker();
  FakeActor single(calm.config(), calm.run(), calm.run_id(), 0);
  FakeLearner steady(calm.config(), calm.run(), calm.run_id());
  ASSERT_TRUE(calm.Finish());
  EXPECT_EQ(disturbed["final_chain"], calm.Summary()["final_chain"]);
  EXPECT_EQ(disturbed["ledger"]["total"], calm.Summary()["ledger"]["total"]);
  EXPECT_EQ(disturbed["final"]["hash"], calm.Summary()["final"]["hash"]);
  EXPECT_EQ(disturbed["faults"]["broker_starts"], 5);
}

// What the broker tells a learner rank of a meeting, welcomes aside; nothing within `wait`.
std::optional<std::vector<std::string>> Met(FakePeer& rank, milliseconds wait) {
  while (auto message = rank.Next(wait)) {
    if (const auto* met = std::get_if<wire::RanksMet>(&*message)) return met->hellos;
  }
  return std::nullopt;
}

TEST(BrokerLoop, LearnerRanksMeetAndARestartedJobDoesNotMeetTheOldOne) {
  Farm farm;
  farm.StartBroker();
  const auto rank = [&](std::uint32_t index) {
    return std::make_unique<FakePeer>(farm.config(), farm.run(), farm.run_id(),
                                      wire::PeerRole::kLearner, index, 2);
  };
  const std::vector<std::string> old = {"id of old", "old"}, anew = {"id of new", "new"};
  auto zero = rank(0), one = rank(1);
  one->Post(wire::RanksMeet{"job", 2, old[1]});
  EXPECT_EQ(Met(*one, milliseconds(100)), std::nullopt);
  zero->Post(wire::RanksMeet{"job", 2, old[0]});
  EXPECT_EQ(Met(*zero, milliseconds(20000)), old);
  EXPECT_EQ(Met(*one, milliseconds(20000)), old);
  zero.reset();
  one.reset();
  zero = rank(0);
  zero->Post(wire::RanksMeet{"job", 2, anew[0]});
  EXPECT_EQ(Met(*zero, milliseconds(100)), std::nullopt);
  one = rank(1);
  one->Post(wire::RanksMeet{"job", 2, anew[1]});
  EXPECT_EQ(Met(*zero, milliseconds(20000)), anew);
  EXPECT_EQ(Met(*one, milliseconds(20000)), anew);
  one->Post(wire::RanksMeet{"job", 1, anew[1]});  // no rank 1 in a world of one
  EXPECT_TRUE(Farm::Until([&] { return one->refused(); }));
}

TEST(BrokerLoop, ALearnerThatRestartsFromItsCheckpointRetrainsTheSameBatches) {
  Farm farm({"rl.steps=5", "checkpoint.every=4"});
  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  FakeLearnerOptions restart;
  {
    FakeLearner first(farm.config(), farm.run(), farm.run_id(), StopAfter(6));
    ASSERT_TRUE(Farm::Until([&] { return first.steps_done() == 6; }));
    std::tie(restart.from_step, restart.chain) = first.checkpoint();
  }
  ASSERT_EQ(restart.from_step, 4u);
  FakeLearner second(farm.config(), farm.run(), farm.run_id(), restart);
  ASSERT_TRUE(farm.Finish());
  EXPECT_EQ(farm.exit_code(), BrokerLoop::kDone);
  Json summary = farm.Summary();
  EXPECT_EQ(summary["faults"]["retrained_steps"], 2);
  EXPECT_EQ(summary["ledger"]["total"]["held_total"], 0);
}

TEST(BrokerLoop, ARetrainedStepThatReachesAnotherStateStopsTheRun) {
  Farm farm({"checkpoint.every=100"});
  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  {
    FakeLearner first(farm.config(), farm.run(), farm.run_id(), StopAfter(1));
    ASSERT_TRUE(Farm::Until([&] { return first.steps_done() == 1; }));
  }
  FakeLearner second(farm.config(), farm.run(), farm.run_id(), Corrupt(0));
  ASSERT_TRUE(farm.Finish());
  EXPECT_EQ(farm.exit_code(), BrokerLoop::kFailed);
  EXPECT_NE(farm.loop().failure().find("retrained step 0"), std::string::npos)
      << farm.loop().failure();
}

TEST(BrokerLoop, HostileFramesAreCountedAndTheRunGoesOn) {
  Farm farm;
  farm.StartBroker();
  net::ClientOptions options;
  options.endpoint = farm.loop().endpoints().front();
  auto stranger = net::Client::Connect(options).value();
  wire::Envelope envelope{H("another run"), Incarnation(9), 1};
  std::string foreign = wire::EncodeFrame(envelope, wire::Goodbye{"x"}).value();
  envelope.run_id = farm.run_id();
  std::string unknown = wire::EncodeFrame(envelope, wire::Goodbye{"x"}).value();
  std::string damaged = unknown;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  for (const std::string& frame : {std::string("garbage"), std::string(), damaged, foreign, unknown,
                                   unknown.substr(0, unknown.size() / 2)}) {
    ASSERT_TRUE(stranger->Send(frame).ok());
  }
  Json counters;
  ASSERT_TRUE(Farm::Until([&] {
    const Json status = farm.Status();
    if (status.is_object()) counters = status["counters"];
    return counters.is_object() && counters["frames_received"] >= 5;
  }));
  EXPECT_GE(counters["frames_malformed"].get<int>() + counters.value("frames_oversized", 0), 2);
  EXPECT_EQ(counters["frames_damaged"], 1);
  EXPECT_EQ(counters["frames_foreign"], 1);
  EXPECT_EQ(counters["frames_unknown_peer"], 1);
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  FakeLearner learner(farm.config(), farm.run(), farm.run_id());
  ASSERT_TRUE(farm.Finish());
  EXPECT_EQ(farm.exit_code(), BrokerLoop::kDone);
}

TEST(BrokerLoop, APeerWithAnotherIdentityIsRefused) {
  Farm farm;
  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  ASSERT_TRUE(Farm::Until([&] { return farm.Status()["actors"].size() == 1; }));
  Config other = farm.config();
  other.run.seed = 8;
  FakePeer stranger(other, farm.run(), farm.run_id(), wire::PeerRole::kActor, 1);
  EXPECT_TRUE(Farm::Until([&] { return stranger.refused(); }));
  farm.Kill();
  farm.StartBroker();  // and remembers it
  FakePeer again(other, farm.run(), farm.run_id(), wire::PeerRole::kActor, 2);
  EXPECT_TRUE(Farm::Until([&] { return again.refused(); }));
}

// The archive of a journal takes as long as it wants.
class StuckArchive : public MovedFiles {
 public:
  using MovedFiles::MovedFiles;
  ~StuckArchive() override { Free(); }
  Result<std::unique_ptr<File>> Open(const std::filesystem::path& path, int flags,
                                     int mode) override {
    if (path.parent_path().filename() == "archive" && !freed_) {
      reached_ = true;
      freed_.wait(false);
    }
    return MovedFiles::Open(path, flags, mode);
  }
  bool reached() const { return reached_; }
  void Free() {
    freed_ = true;
    freed_.notify_all();
  }

 private:
  std::atomic<bool> reached_{false}, freed_{false};
};

TEST(BrokerLoop, TheRunGoesOnWhileOldRecordsArePacked) {
  StuckArchive files("/");
  Farm farm({"supervised.steps=0", "rl.steps=100000", "rl.groups=16", "rl.group_size=8",
             "eval.items=0", "journal.snapshot_records=100"},
            /*segment_bytes=*/16384);
  const std::shared_ptr<void> freed_before_the_farm_ends(nullptr, [&](void*) { files.Free(); });
  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  FakeLearner learner(farm.config(), farm.run(), farm.run_id());
  ASSERT_TRUE(Farm::Until([&] { return files.reached(); }));
  const std::uint32_t step = learner.steps_done();
  EXPECT_TRUE(Farm::Until([&] { return learner.steps_done() > step + 10; }, milliseconds(20000)));
  const auto archived = [&] { return ListLog(farm.run() / "journal")->front().archived; };
  EXPECT_FALSE(archived());
  files.Free();
  EXPECT_TRUE(Farm::Until(archived));
  farm.loop().RequestStop();
  ASSERT_TRUE(farm.Finish());
}

TEST(BrokerLoop, AStopDrainsAndExits75) {
  Farm farm({"supervised.steps=500"});
  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  FakeLearner learner(farm.config(), farm.run(), farm.run_id());
  ASSERT_TRUE(Farm::Until([&] { return learner.steps_done() >= 2; }));
  farm.loop().RequestStop();
  ASSERT_TRUE(farm.Finish());
  EXPECT_EQ(farm.exit_code(), BrokerLoop::kStopped);
  EXPECT_FALSE(std::filesystem::exists(farm.run() / "summary.json"));
}

TEST(BrokerLoop, OneBrokerPerRunDirectory) {
  Farm farm;
  farm.StartBroker();
  auto second = BrokerLoop::Start(farm.options(), farm.config(), SystemClock());
  EXPECT_EQ(second.status().code(), StatusCode::kUnavailable);
}

// A journal that is not synced at every step may lose its end, the store beside it nothing.
TEST(BrokerLoop, StoredSamplesWhoseItemsTheJournalLostAreTakenUp) {
  Farm farm;
  farm.StartBroker();
  {
    FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
    ASSERT_TRUE(Farm::Until([&] {
      const Json status = farm.Status();
      if (!status.is_object()) return false;
      const Json held = status["ledger"]["total"]["held"];
      return held.value("batched", 0) + held.value("accepted", 0) >= 8;  // two steps
    }));
  }
  farm.Kill();
  LogPosition cut;
  Status read = ReadRecordLog(
      farm.run() / "journal",
      [&](const LogRecord& logged) {
        auto record = wire::DecodeJournalRecord(logged.payload);
        if (std::holds_alternative<wire::ItemsIssued>(*record)) cut = logged.position;
        return Status::Ok();
      },
      nullptr);
  ASSERT_TRUE(read.ok()) << read.ToString();
  ASSERT_EQ(cut.segment, 1u);
  std::filesystem::resize_file(farm.run() / "journal" / "000001.log", cut.offset);

  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  FakeLearner learner(farm.config(), farm.run(), farm.run_id());
  ASSERT_TRUE(farm.Finish());
  EXPECT_EQ(farm.exit_code(), BrokerLoop::kDone);
  auto store = TrajectoryStoreReader::Open(farm.run() / "trajectories");
  ASSERT_TRUE(store.ok());
  std::set<TrajectoryId> ids;
  const auto entries = (*store)->Entries().value();
  for (const auto& entry : entries) {
    EXPECT_TRUE(ids.insert(entry.id).second) << entry.id.ToString() << " is stored twice";
  }
}

TEST(BrokerLoop, ADamagedJournalIsNamedAndNothingIsChanged) {
  Farm farm({"journal.mode=durable"});  // what a sync covered and is gone is damage
  farm.StartBroker();
  FakeActor actor(farm.config(), farm.run(), farm.run_id(), 0);
  ASSERT_TRUE(Farm::Until([&] {
    const Json status = farm.Status();
    return status.is_object() && status["ledger"]["total"]["held"].value("batched", 0) >= 4 &&
           status["queues"]["journal"]["bytes"] == 0;  // all of that is written
  }));
  farm.Kill();
  std::filesystem::path segment;
  for (const auto& entry : std::filesystem::directory_iterator(farm.run() / "journal")) {
    if (entry.path().extension() == ".log") segment = entry.path();
  }
  auto size = std::filesystem::file_size(segment);
  std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size / 3));
  file.put('\x55').put('\xAA').put('\x55').put('\xAA');
  file.close();
  auto restarted = BrokerLoop::Start(farm.options(), farm.config(), SystemClock());
  ASSERT_FALSE(restarted.ok());
  EXPECT_EQ(restarted.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(restarted.status().message().find(segment.filename().string()), std::string::npos)
      << restarted.status().ToString();
  EXPECT_EQ(std::filesystem::file_size(segment), size);
}

}  // namespace
}  // namespace thresher::broker
