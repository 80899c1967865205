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

TEST(Pause, FramesThatWaitForTheDiskAreBoundedAndNothingAcceptedIsLost) {
  ServedRun served({"broker.max_message_bytes=2000000"});
  FakePeer actor(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 0);
  ASSERT_TRUE(Next<wire::Welcome>(actor));
  actor.Post(wire::LeaseRequest{1, 4, false, {}});
  auto grant = Next<wire::LeaseGrant>(actor);
  ASSERT_TRUE(grant && !grant->leases.empty());
  const wire::Lease& lease = grant->leases[0];
  {
    NoSpace disk;
    actor.Post(wire::SampleFailed{lease.fence, {lease.stream, 0, lease.item, 0}, "cancelled", ""});
    ASSERT_TRUE(ServedRun::Until([&] { return served.Status().value("paused", "") != ""; }));
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
  ASSERT_TRUE(ServedRun::Until([&] { return served.Status().value("paused", "x").empty(); }));
  served.ExpectCount("counters", "samples_refused", 30);
  EXPECT_EQ(served.Status()["queues"]["received"]["bytes"], 0);
  EXPECT_EQ(served.Status()["ledger"]["total"]["dropped"]["cancelled"], 1);
}

TEST(Pause, AnUploadThatHadNoRoomIsAnsweredWhenItComesAgain) {
  ServedRun served({"broker.max_message_bytes=65536", "broker.memory_bytes=1048576"});
  FakePeer actor(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 0);
  ASSERT_TRUE(Next<wire::Welcome>(actor));
  actor.Post(wire::LeaseRequest{1, 4, false, {}});
  auto grant = Next<wire::LeaseGrant>(actor);
  ASSERT_TRUE(grant && !grant->leases.empty());
  const wire::Lease& lease = grant->leases[0];
  const TrajectoryId id{lease.stream, 0, lease.item, 0};
  const wire::Upload upload{1, {FencingToken(1)}, {std::string(50000, 'x')}};
  {
    NoSpace disk;
    actor.Post(wire::SampleFailed{lease.fence, id, "cancelled", ""});
    ASSERT_TRUE(ServedRun::Until([&] { return served.Status().value("paused", "") != ""; }));
    // 256 KiB may wait: not of uploads alone.
    const wire::SampleFailed failed{lease.fence, id, "cancelled", std::string(60000, 'x')};
    for (int i = 0; i < 4; ++i) actor.Post(failed);
    actor.Post(upload);
    served.ExpectCount("counters", "frames_dropped_paused", 1);
  }
  ASSERT_TRUE(ServedRun::Until([&] { return served.Status().value("paused", "x").empty(); }));
  actor.Post(upload);
  auto ack = Next<wire::UploadAck>(actor);
  ASSERT_TRUE(ack);
  EXPECT_EQ(ack->verdicts.size(), 1u);
  EXPECT_TRUE(ServedRun::Until([&] { return served.Status()["credits"]["in_use_bytes"] == 0; }));
}

}  // namespace
}  // namespace thresher::broker
