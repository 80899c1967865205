// Credit over real sockets: who keeps to it is never refused, who does not is, and harms nobody.
#include <gtest/gtest.h>

#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

// The least budget that there is: 256 KiB of credit.
const std::vector<std::string> kTight = {"broker.max_message_bytes=65536",
                                         "broker.memory_bytes=1048576"};

wire::Upload Unwanted(const ServedRun& served, ActorId actor, std::uint64_t number,
                      std::size_t bytes) {
  Trajectory t = MakeTrajectory(served.config(), Id(Stream::kTrain, 1u << 20), 2, V(0), 0, actor,
                                TestIdentity(served.config()).Hash());
  t.text.assign(bytes, 'x');
  return {number, {FencingToken(1)}, {wire::EncodeTrajectory(t)}};
}

// The next message of this kind that `peer` gets.
template <typename T>
std::optional<T> Hear(FakePeer& peer) {
  while (auto message = peer.Next(milliseconds(10000))) {
    if (const auto* found = std::get_if<T>(&*message)) return *found;
  }
  return std::nullopt;
}

TEST(Credit, IsSharedBetweenThoseWhoTakePart) {
  ServedRun served(kTight);
  FakePeer one(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 0);
  auto welcome = Hear<wire::Welcome>(one);
  ASSERT_TRUE(welcome);
  EXPECT_GT(welcome->credit.bytes, 0u);
  EXPECT_LT(welcome->credit.bytes, 131072u);  // a part of its share, to begin with
  FakePeer two(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 1);
  for (FakePeer* peer : {&one, &two}) {  // heartbeats come by themselves
    std::optional<wire::HeartbeatAck> beat;
    do {
      beat = Hear<wire::HeartbeatAck>(*peer);
    } while (beat && beat->credit.bytes != 87381u);
    EXPECT_TRUE(beat);
  }
  EXPECT_TRUE(ServedRun::Until(
      [&] { return served.Status()["credits"]["granted_bytes"].get<int>() == 2 * 87381; }));
}

// It does not have to speak for it: its next heartbeat is far away.
TEST(Credit, WhoWaitsIsToldAsSoonAsThereIsSome) {
  std::vector<std::string> settings = kTight;
  settings.push_back("net.heartbeat_ms=2000");
  ServedRun served(settings);
  std::vector<std::unique_ptr<FakePeer>> peers;
  std::optional<wire::Welcome> welcome;
  do {
    peers.push_back(std::make_unique<FakePeer>(served.config(), served.run(), served.run_id(),
                                               wire::PeerRole::kActor, peers.size()));
    welcome = Hear<wire::Welcome>(*peers.back());
    ASSERT_TRUE(welcome);
  } while (welcome->credit.bytes > 0 && peers.size() < 64);
  ASSERT_EQ(welcome->credit.bytes, 0u);
  const auto begun = std::chrono::steady_clock::now();
  peers.front()->Post(wire::Goodbye{"done"});
  std::optional<wire::HeartbeatAck> told;
  do {
    told = Hear<wire::HeartbeatAck>(*peers.back());
  } while (told && told->credit.bytes == 0);
  EXPECT_TRUE(told);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, milliseconds(1200));
}

TEST(Credit, AnUploadBeyondItIsAnsweredAndMayComeAgain) {
  ServedRun served(kTight);
  FakePeer sender(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 9);
  ASSERT_TRUE(Hear<wire::Welcome>(sender));
  std::uint64_t number = 0;
  // Sends an upload that a fourth of the budget does not hold, until that is said.
  auto sends = [&](bool beyond) {
    return ServedRun::Until([&] {
      sender.Post(Unwanted(served, ActorId(9), ++number, 60000));
      auto ack = Hear<wire::UploadAck>(sender);
      if (!ack || ack->upload != number || ack->verdicts.empty() != beyond) return false;
      return beyond || ack->verdicts.front() == wire::UploadVerdict::kRefused;  // nobody asked
    });
  };
  EXPECT_TRUE(sends(false));
  {
    std::vector<std::unique_ptr<FakePeer>> others;
    for (std::uint32_t slot = 0; slot < 4; ++slot) {
      others.push_back(std::make_unique<FakePeer>(served.config(), served.run(), served.run_id(),
                                                  wire::PeerRole::kActor, slot));
      ASSERT_TRUE(Hear<wire::Welcome>(*others.back()));
    }
    EXPECT_TRUE(sends(true));
    served.ExpectCount("counters", "uploads_over_credit", 1);
    const nlohmann::json credits = served.Status()["credits"];
    EXPECT_GE(credits["by_actor"]["9"]["refused"], 1) << credits;
    EXPECT_NE(served.Events().find("over_credit"), std::string::npos);
    for (auto& other : others) other->Post(wire::Goodbye{"drained"});
    EXPECT_TRUE(
        ServedRun::Until([&] { return served.Status()["credits"]["by_actor"].size() == 1; }));
  }
  EXPECT_TRUE(sends(false));
  EXPECT_TRUE(ServedRun::Until([&] { return served.Status()["credits"]["in_use_bytes"] == 0; }));
}

TEST(Credit, AFloodLosesNobodyAnything) {
  std::vector<std::string> overrides = kTight;
  overrides.push_back("rl.steps=6");
  ServedRun served(overrides);
  FakePeer flood(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 9);
  ASSERT_TRUE(Hear<wire::Welcome>(flood));
  std::jthread flooding([&](std::stop_token stop) {
    for (std::uint64_t n = 1; n < 3000 && !stop.stop_requested(); ++n) {
      if (n % 8 == 0) std::this_thread::sleep_for(milliseconds(1));
      flood.Post(Unwanted(served, ActorId(9), n, 50000));
    }
  });
  FakeActor actor(served.config(), served.run(), served.run_id(), 0, /*send_twice=*/3);
  FakeLearner learner(served.config(), served.run(), served.run_id());
  EXPECT_TRUE(ServedRun::Until([&] { return served.Status().value("finished", false); }));
  flooding.request_stop();
  flooding.join();
  const nlohmann::json status = served.Status();
  EXPECT_TRUE(status["ledger"]["balanced"].get<bool>());
  EXPECT_EQ(status["faults"]["alarms"], 0) << status["faults"];
  EXPECT_EQ(status["credits"]["by_actor"].value("0", nlohmann::json::object()).value("refused", 0),
            0);
}

TEST(Credit, ComesBackFromWhoFallsSilentOrSaysGoodbye) {
  ServedRun served({"broker.lease_silence_ms=300"});
  auto granted = [&] { return served.Status()["credits"].value("granted_bytes", 0.0); };
  {
    FakePeer gone(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 0);
    FakePeer leaver(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 1);
    ASSERT_TRUE(Hear<wire::Welcome>(gone) && Hear<wire::Welcome>(leaver));
    EXPECT_TRUE(ServedRun::Until([&] { return granted() > 0; }));
    leaver.Post(wire::Goodbye{"drained"});
    EXPECT_TRUE(
        ServedRun::Until([&] { return served.Status()["credits"]["by_actor"].size() == 1; }));
  }
  EXPECT_TRUE(ServedRun::Until([&] { return granted() == 0; }));
}

TEST(Credit, WhoKeepsSendingWhatIsRefusedIsNotLookedAtForAWhile) {
  ServedRun served;
  FakePeer sender(served.config(), served.run(), served.run_id(), wire::PeerRole::kActor, 9);
  ASSERT_TRUE(Hear<wire::Welcome>(sender));
  std::uint64_t number = 0;
  const auto post = [&] {
    sender.Post(Unwanted(served, ActorId(9), ++number, 1u << 20));
    return served.Status()["counters"].value("frames_of_floods", 0.0) >= 1;
  };
  EXPECT_TRUE(ServedRun::Until(post));
  served.ExpectCount("counters", "floods", 1);
  EXPECT_GE(number, 17u);  // so much is forgiven
  EXPECT_NE(served.Events().find("\"flood\""), std::string::npos);
  // Small frames are heard, and after a pause large ones.
  sender.Post(wire::Heartbeat{});
  EXPECT_TRUE(Hear<wire::HeartbeatAck>(sender));
  EXPECT_TRUE(ServedRun::Until([&] {
    sender.Post(Unwanted(served, ActorId(9), ++number, 1u << 20));
    while (auto message = sender.Next(milliseconds(500))) {
      const auto* ack = std::get_if<wire::UploadAck>(&*message);
      if (ack != nullptr && ack->upload == number) return true;
    }
    return false;
  }));
}

}  // namespace
}  // namespace thresher::broker
