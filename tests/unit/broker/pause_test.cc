// A disk that cannot be written: the broker waits, keeps a bounded part of what comes, and goes on.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

// No file of this process grows while it lives.
class NoSpace {
 public:
  NoSpace() {
    before_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &limit_);
    rlimit none = limit_;
    none.rlim_cur = 1;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &none), 0);
  }
  ~NoSpace() {
    ::setrlimit(RLIMIT_FSIZE, &limit_);
    ::signal(SIGXFSZ, before_);
  }

 private:
  rlimit limit_{};
  void (*before_)(int);
};

// The next message that is a `T`.
template <typename T>
std::optional<T> Next(FakePeer& peer) {
  while (auto message = peer.Next(milliseconds(10000))) {
    if (const T* found = std::get_if<T>(&*message)) return *found;
  }
  return std::nullopt;
}

// A broker, and an actor that holds a lease of it.
struct LeasedRun {
  explicit LeasedRun(const std::vector<std::string>& more)
      : served(more),
        actor(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 0) {
    EXPECT_TRUE(Next<wire::Welcome>(actor));
    actor.Post(wire::LeaseRequest{1, 4, false, {}});
    const auto grant = Next<wire::LeaseGrant>(actor);
    EXPECT_TRUE(grant && !grant->leases.empty());
    if (grant && !grant->leases.empty()) lease = grant->leases[0];
    id = {lease.stream, 0, lease.item, 0};
  }
  void WaitForPause(bool paused) {
    ASSERT_TRUE(ServedRun::Until(
        [&] { return served.Status().value("paused", paused ? "" : "x").empty() != paused; }));
  }

  ServedRun served;
  FakePeer actor;
  wire::Lease lease;
  TrajectoryId id;  // the first of the lease
};

TEST(Pause, FramesThatWaitForTheDiskAreBoundedAndNothingAcceptedIsLost) {
  LeasedRun run({"broker.max_message_bytes=2000000"});
  auto& [served, actor, lease, id] = run;
  {
    NoSpace disk;
    actor.Post(wire::SampleFailed{lease.fence, id, "cancelled", ""});
    run.WaitForPause(true);
    wire::Upload upload;
    upload.fences = {FencingToken(1)};
    upload.records = {std::string(1 << 20, 'x')};
    // Half of the credit is its own: 32 MiB.
    for (upload.upload = 1; upload.upload <= 44; ++upload.upload) actor.Post(upload);
    served.ExpectCount("counters", "uploads_over_credit", 44 - 32);
    const nlohmann::json received = served.Status()["queues"]["received"];
    EXPECT_LE(received["bytes"].get<double>(), 33 << 20);
    EXPECT_GE(received["messages"].get<double>(), 30);
    EXPECT_EQ(served.Number("counters", "samples_refused"), 0) << "none was looked at";
  }
  run.WaitForPause(false);
  served.ExpectCount("counters", "samples_refused", 30);
  EXPECT_EQ(served.Status()["queues"]["received"]["bytes"], 0);
  EXPECT_EQ(served.Status()["ledger"]["total"]["dropped"]["cancelled"], 1);
}

TEST(Pause, AnUploadThatHadNoRoomIsAnsweredWhenItComesAgain) {
  LeasedRun run({"broker.max_message_bytes=65536", "broker.memory_bytes=1048576"});
  auto& [served, actor, lease, id] = run;
  const wire::Upload upload{1, {FencingToken(1)}, {std::string(50000, 'x')}};
  {
    NoSpace disk;
    actor.Post(wire::SampleFailed{lease.fence, id, "cancelled", ""});
    run.WaitForPause(true);
    // 256 KiB may wait: not of uploads alone.
    const wire::SampleFailed failed{lease.fence, id, "cancelled", std::string(60000, 'x')};
    for (int i = 0; i < 4; ++i) actor.Post(failed);
    actor.Post(upload);
    served.ExpectCount("counters", "frames_dropped_paused", 1);
  }
  run.WaitForPause(false);
  actor.Post(upload);
  auto ack = Next<wire::UploadAck>(actor);
  ASSERT_TRUE(ack);
  EXPECT_EQ(ack->verdicts.size(), 1u);
  EXPECT_TRUE(ServedRun::Until([&] { return served.Status()["credits"]["in_use_bytes"] == 0; }));
}

}  // namespace
}  // namespace thresher::broker
