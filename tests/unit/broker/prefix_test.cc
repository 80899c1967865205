// What an actor has of an unfinished sample: kept, granted, and still there after a death.
#include <gtest/gtest.h>

#include <cmath>

#include "broker/partial_log.h"
#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using namespace std::chrono_literals;
using wire::UploadVerdict;

// An evaluation round is open from the start: its samples are leased under version 0.
class PrefixTest : public ::testing::Test {
 protected:
  explicit PrefixTest(std::vector<std::string> more = {"journal.mode=durable",
                                                       "sampling.max_new_tokens=40"})
      : served_(Settings(std::move(more))) {
    learner_ = std::make_unique<FakeLearner>(served_.config(), served_.run(), served_.run_id(),
                                             LearnerOptions());
  }

  static std::vector<std::string> Settings(std::vector<std::string> more) {
    more.insert(more.end(), {"supervised.steps=0", "actors.partial_tokens=8"});
    return more;
  }
  static FakeLearnerOptions LearnerOptions() {
    FakeLearnerOptions options;
    options.stop_after = 0;
    return options;
  }
  std::unique_ptr<FakePeer> Actor(std::uint32_t slot) {
    auto peer = std::make_unique<FakePeer>(served_.config(), served_.run(), served_.run_id(),
                                           wire::PeerRole::kActor, slot);
    EXPECT_TRUE(Wait<wire::Welcome>(*peer));
    return peer;
  }
  template <typename T>
  std::optional<T> Wait(FakePeer& peer) {
    while (auto message = peer.Next(20s)) {
      if (auto* found = std::get_if<T>(&*message)) return std::move(*found);
    }
    ADD_FAILURE() << "no " << wire::MessageName(T{});
    return std::nullopt;
  }
  // Asks with version 0 until something is granted.
  wire::LeaseGrant Ask(FakePeer& peer, std::uint32_t most = 1) {
    for (int i = 0; i < 50; ++i) {
      peer.Post(wire::LeaseRequest{++requests_, most, true, V(0)});
      auto grant = Wait<wire::LeaseGrant>(peer);
      if (!grant || !grant->leases.empty()) return grant.value_or(wire::LeaseGrant{});
    }
    ADD_FAILURE() << "nothing is granted";
    return {};
  }
  static TrajectoryId First(const wire::Lease& lease) {
    return {lease.stream, lease.island, lease.item, lease.first_sample};
  }
  Trajectory Prefix(const wire::Lease& lease, std::uint32_t slot, std::uint32_t tokens) const {
    return MakePrefix(
        MakeTrajectory(served_.config(), First(lease), lease.group_size, lease.version, 0,
                       ActorId(slot), TestIdentity(served_.config()).Hash()),
        tokens);
  }
  UploadVerdict Send(FakePeer& peer, FencingToken fence, const Trajectory& record) {
    peer.Post(wire::Upload{++uploads_, {fence}, {SharedBytes(wire::EncodeTrajectory(record))}});
    auto ack = Wait<wire::UploadAck>(peer);
    return ack && ack->verdicts.size() == 1 ? ack->verdicts[0] : UploadVerdict::kConflict;
  }

  // The status is made anew a few times a second.
  void ExpectNumber(const std::string& part, const std::string& name, double number) const {
    EXPECT_TRUE(ServedRun::Until([&] { return served_.Number(part, name) == number; }))
        << part << "." << name << " is " << served_.Number(part, name);
  }

  ServedRun served_;
  std::unique_ptr<FakeLearner> learner_;
  std::uint64_t requests_ = 0, uploads_ = 0;
};

class SmallPrefixTest : public PrefixTest {
 protected:
  SmallPrefixTest()
      : PrefixTest({"journal.mode=async", "sampling.max_new_tokens=1500", "model.context=1600",
                    "journal.segment_bytes=65536", "broker.max_message_bytes=65536",
                    "learner.micro_batch_tokens=2048"}) {}
};

TEST_F(PrefixTest, WhoGetsTheSampleNextGetsItsLongestPrefix) {
  auto first = Actor(0), second = Actor(1);
  const wire::LeaseGrant grant = Ask(*first);
  EXPECT_TRUE(grant.prefixes.empty());
  const wire::Lease lease = grant.leases.front();
  EXPECT_EQ(Send(*first, lease.fence, Prefix(lease, 0, 4)), UploadVerdict::kAccepted);
  EXPECT_EQ(Send(*first, lease.fence, Prefix(lease, 0, 9)), UploadVerdict::kAccepted);
  EXPECT_EQ(Send(*first, lease.fence, Prefix(lease, 0, 6)), UploadVerdict::kDuplicate);
  first->Post(wire::Goodbye{"drained", 3});
  served_.ExpectCount("tokens", "generated_twice", 3);
  wire::LeaseGrant again = Ask(*second);
  for (int i = 0; i < 20 && again.prefixes.empty(); ++i) again = Ask(*second);
  ASSERT_EQ(again.prefixes.size(), 1u);
  const Trajectory prefix = wire::DecodeTrajectory(again.prefixes[0]).value();
  EXPECT_EQ(prefix, Prefix(lease, 0, 9));
  EXPECT_EQ(First(again.leases.front()), First(lease));
  ExpectNumber("partials", "kept", 2);
}

// It has the same bits, whoever drew it.
TEST_F(PrefixTest, WhoeverHasTheLeaseTheLongestIsKept) {
  auto first = Actor(0), second = Actor(1);
  const wire::Lease lease = Ask(*first).leases.front();
  EXPECT_EQ(Send(*first, FencingToken(lease.fence.value + 1000), Prefix(lease, 0, 4)),
            UploadVerdict::kAccepted);
  EXPECT_EQ(Send(*second, lease.fence, Prefix(lease, 1, 6)), UploadVerdict::kAccepted);
  first->Post(wire::LeaseRelease{lease.fence, {}, "enough"});
  EXPECT_EQ(Send(*first, lease.fence, Prefix(lease, 0, 5)), UploadVerdict::kDuplicate);
  EXPECT_EQ(Send(*first, lease.fence, Prefix(lease, 0, 7)), UploadVerdict::kAccepted);
  ExpectNumber("partials", "kept", 3);
  ExpectNumber("partials", "tokens", 7);
}

// Leases are not journalled, and an actor that is busy asks for none.
TEST_F(PrefixTest, AnActorThatWorksOnWhenTheBrokerWasRestartedIsHeard) {
  auto actor = Actor(0);
  const wire::Lease lease = Ask(*actor).leases.front();
  served_.Restart();
  ASSERT_TRUE(Wait<wire::Welcome>(*actor));
  EXPECT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, 4)), UploadVerdict::kAccepted);
}

TEST_F(PrefixTest, WhatActorsTellOfTokensIsOfTheRun) {
  auto actor = Actor(0);
  const wire::Lease lease = Ask(*actor).leases.front();
  ASSERT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, 4)), UploadVerdict::kAccepted);
  actor->SetCounters(
      {{wire::Heartbeat::kUnsavedTokens, 70}, {wire::Heartbeat::kContinuedTokens, 9}});
  ExpectNumber("tokens", "continued", 9);
  ASSERT_TRUE(ServedRun::Until(
      [&] { return ReadFile(PartialsFolder(served_.run()) / "000001.log").value().size() > 0; }));
  std::this_thread::sleep_for(1500ms);  // the tally is written once a second
  actor.reset();
  served_.Restart();
  ExpectNumber("tokens", "continued", 9);
  ExpectNumber("tokens", "generated_twice", 70);
}

TEST_F(PrefixTest, WhatCannotBeContinuedIsRefused) {
  auto actor = Actor(0);
  const wire::Lease lease = Ask(*actor).leases.front();
  auto refused = [&](auto&& change) {
    Trajectory prefix = Prefix(lease, 0, 4);
    change(prefix);
    return Send(*actor, lease.fence, prefix) == UploadVerdict::kRefused;
  };
  EXPECT_TRUE(refused([](Trajectory& t) { t.run_identity = H("another"); }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.versions[0].version = V(1); }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.pinned = V(1); }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.sampling.temperature = 3; }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.group_size = 7; }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.logprobs[1] = NAN; }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.sampling.max_new_tokens = 4; }));
  EXPECT_FALSE(refused([](Trajectory&) {}));
}

TEST_F(PrefixTest, AFinishedSampleHasNone) {
  auto actor = Actor(0);
  const wire::Lease lease = Ask(*actor).leases.front();
  ASSERT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, 4)), UploadVerdict::kAccepted);
  ExpectNumber("partials", "now", 1);
  const Trajectory whole =
      MakeTrajectory(served_.config(), First(lease), lease.group_size, lease.version, 1, ActorId(0),
                     TestIdentity(served_.config()).Hash());
  ASSERT_EQ(Send(*actor, lease.fence, whole), UploadVerdict::kAccepted);
  served_.ExpectCount("counters", "samples_accepted", 1);
  ExpectNumber("partials", "now", 0);
  EXPECT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, 9)), UploadVerdict::kRefused);
}

TEST_F(PrefixTest, ADeadBrokersSuccessorHasIt) {
  auto actor = Actor(0);
  const wire::Lease lease = Ask(*actor).leases.front();
  ASSERT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, 4)), UploadVerdict::kAccepted);
  ASSERT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, 9)), UploadVerdict::kAccepted);
  served_.Restart();
  ExpectNumber("partials", "now", 1);
  ExpectNumber("partials", "tokens", 9);
  ASSERT_TRUE(Wait<wire::Welcome>(*actor));
  wire::LeaseGrant again = Ask(*actor);
  for (int i = 0; i < 20 && again.prefixes.empty(); ++i) again = Ask(*actor);
  ASSERT_EQ(again.prefixes.size(), 1u);
  EXPECT_EQ(wire::DecodeTrajectory(again.prefixes[0]).value(), Prefix(lease, 0, 9));
}

TEST_F(PrefixTest, ADamagedLogOfThemCostsWhatItHeldAndNotTheRun) {
  auto actor = Actor(0);
  const wire::Lease lease = Ask(*actor).leases.front();
  for (std::uint32_t tokens : {4u, 9u, 12u}) {
    ASSERT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, tokens)), UploadVerdict::kAccepted);
  }
  served_.Restart([&] {
    const auto file = PartialsFolder(served_.run()) / "000001.log";
    std::string bytes = ReadFile(file).value();
    bytes[100] ^= 1;
    std::ofstream(file, std::ios::binary) << bytes;
  });
  ExpectNumber("partials", "now", 0);
  EXPECT_NE(served_.Events().find("partials_lost"), std::string::npos);
  ASSERT_TRUE(Wait<wire::Welcome>(*actor));
  EXPECT_FALSE(Ask(*actor).leases.empty());
}

// Segments of 64 KiB, and some hundred of them written: of one sample, beside which another one's
// prefix lies in the first segment until it is moved.
TEST_F(SmallPrefixTest, WhatNobodyNeedsLeavesTheDiskAndWhatIsNeededStays) {
  auto actor = Actor(0), other = Actor(1);
  const wire::Lease lease = Ask(*actor).leases.front();
  const wire::Lease kept = Ask(*other).leases.front();
  ASSERT_NE(First(lease), First(kept));
  ASSERT_EQ(Send(*other, kept.fence, Prefix(kept, 1, 30)), UploadVerdict::kAccepted);
  std::uint32_t tokens = 0;
  auto segments = [&] { return ListLog(PartialsFolder(served_.run())).value(); };
  while (tokens < 1450 && segments().front().number < 4) {
    ASSERT_EQ(Send(*actor, lease.fence, Prefix(lease, 0, tokens += 6)), UploadVerdict::kAccepted);
  }
  EXPECT_GE(segments().front().number, 4u) << tokens;
  EXPECT_LE(segments().size(), 6u);
  served_.ExpectCount("counters", "partials_moved", 1);
  served_.Restart();
  ExpectNumber("partials", "now", 2);
  ExpectNumber("partials", "tokens", tokens + 30.0);
}

}  // namespace
}  // namespace thresher::broker
