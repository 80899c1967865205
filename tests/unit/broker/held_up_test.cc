// A broker whose thread was held up could not hear anybody: whoever spoke meanwhile was not silent.
#include <gtest/gtest.h>

#include <atomic>

#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The machine's clock, which a test may move on; thread-safe.
class JumpingClock : public Clock {
 public:
  TimePoint Now() const override { return SystemClock().Now() + ahead_.load(); }
  std::chrono::nanoseconds WallTime() const override { return SystemClock().WallTime(); }
  void Jump(Duration step) { ahead_ = ahead_.load() + step; }

 private:
  std::atomic<Duration> ahead_{Duration::zero()};
};

TEST(HeldUp, NoLeaseExpiresForTimeInWhichNobodyCouldBeHeard) {
  JumpingClock clock;
  ServedRun served({"broker.lease_silence_ms=2000", "net.heartbeat_ms=100"}, clock);
  FakePeer actor(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 0);
  std::optional<wire::LeaseGrant> grant;
  while (auto message = actor.Next(seconds(10))) {
    if (std::holds_alternative<wire::Welcome>(*message)) {
      actor.Post(wire::LeaseRequest{1, 4, false, {}});
    } else if (auto* got = std::get_if<wire::LeaseGrant>(&*message)) {
      grant = *got;
      break;
    }
  }
  ASSERT_TRUE(grant && !grant->leases.empty());
  std::vector<FencingToken> held;
  for (const wire::Lease& lease : grant->leases) held.push_back(lease.fence);
  actor.SetHeld(held);

  clock.Jump(seconds(60));
  served.ExpectCount("counters", "held_up_seconds", 60);
  EXPECT_EQ(served.Number("counters", "leases_expired"), 0);
  EXPECT_EQ(served.Status()["leases"]["now"], held.size());
  EXPECT_LT(served.Status()["actors"][0]["heartbeat_age_seconds"].get<double>(), 50);

  actor.SetHeld({});
  served.ExpectCount("counters", "leases_expired", static_cast<double>(held.size()));
}

}  // namespace
}  // namespace thresher::broker
