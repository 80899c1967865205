// Who is kept out of a run, over real sockets: told why where it can be told, counted, and visible.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <optional>
#include <variant>

#include "common/net/peer_link.h"
#include "common/wire/protocol_version.h"
#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kWait{10000};

// A peer that says what the test wants, with the key that the test wants.
class Stranger {
 public:
  Stranger(const ServedRun& served, const std::string& endpoint, const net::KeyPair& key)
      : run_id_(served.run_id()) {
    net::ClientOptions options;
    options.endpoint = endpoint;
    options.own_key = key;
    options.server_public_key = served.Keys().broker.public_key;
    client_ = net::Client::Connect(options).value();
  }

  void SetRunId(const Hash128& id) { run_id_ = id; }
  void SetIncarnation(Incarnation incarnation) { incarnation_ = incarnation; }
  Incarnation incarnation() const { return incarnation_; }

  std::string FrameOf(const wire::Message& message) {
    return wire::EncodeFrame({run_id_, incarnation_, ++sequence_}, message).value();
  }
  void Say(const wire::Message& message) { Send(FrameOf(message)); }
  void Send(const std::string& bytes) { ASSERT_TRUE(client_->Send(bytes).ok()); }
  std::optional<SharedBytes> Hear(milliseconds wait = kWait) { return client_->Receive(wait); }
  // The next frame that is a `T`; null when none comes.
  template <typename T>
  std::optional<T> Hear() {
    while (auto bytes = Hear()) {
      auto frame = wire::DecodeFrame(std::as_bytes(std::span(*bytes)));
      if (!frame.ok()) continue;
      if (auto* found = std::get_if<T>(&frame->message)) return *found;
    }
    return std::nullopt;
  }

 private:
  Hash128 run_id_;
  Incarnation incarnation_ = NewIncarnation();
  std::uint64_t sequence_ = 0;
  std::unique_ptr<net::Client> client_;
};

wire::Hello HelloOf(const ServedRun& served, wire::PeerRole role, std::uint32_t index = 0) {
  wire::Hello hello;
  hello.role = role;
  hello.index = index;
  hello.world = role == wire::PeerRole::kLearner ? 1 : 0;
  hello.name = "stranger";
  hello.identity = TestIdentity(served.config());
  return hello;
}

TEST(Refusals, AnUnknownKeyDoesNotEvenConnect) {
  ServedRun served;
  Stranger stranger(served, served.tcp(), net::GenerateKeyPair().value());
  stranger.Say(HelloOf(served, wire::PeerRole::kActor));
  served.ExpectCount("gauges", "handshakes_refused", 1);
  EXPECT_EQ(stranger.Hear(milliseconds(100)), std::nullopt);
  EXPECT_EQ(served.Number("counters", "frames_received"), 0);
}

TEST(Refusals, AKeyOfAnotherRoleIsToldAndDoesNotFixTheRunsIdentity) {
  ServedRun served;
  Stranger thief(served, served.tcp(), served.Keys().actor);
  wire::Hello hello = HelloOf(served, wire::PeerRole::kLearner);
  hello.identity.kernel_set = "the thief's";
  thief.Say(hello);
  auto refused = thief.Hear<wire::Refused>();
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, "the key of 'actor' may not act as learner");
  served.ExpectCount("counters", "peers_refused_key", 1);
  EXPECT_NE(served.Events().find("may not act as learner"), std::string::npos);
  // The first who may take part fixes what is computed.
  Stranger learner(served, served.tcp(), served.Keys().learner);
  learner.Say(HelloOf(served, wire::PeerRole::kLearner));
  EXPECT_TRUE(learner.Hear<wire::Welcome>());
}

TEST(Refusals, EveryKeyActsForItsOwnRoleAlone) {
  ServedRun served;
  const net::KeyRing keys = served.Keys();
  const std::pair<net::KeyPair, wire::PeerRole> own[] = {{keys.actor, wire::PeerRole::kActor},
                                                         {keys.learner, wire::PeerRole::kLearner},
                                                         {keys.tool, wire::PeerRole::kTool}};
  for (const auto& [key, owner] : own) {
    for (const auto& [other, role] : own) {
      Stranger peer(served, served.tcp(), key);
      peer.Say(HelloOf(served, role));
      if (role == owner) {
        EXPECT_TRUE(peer.Hear<wire::Welcome>()) << RoleName(owner);
      } else {
        EXPECT_TRUE(peer.Hear<wire::Refused>()) << RoleName(owner) << " as " << RoleName(role);
      }
    }
  }
  served.ExpectCount("counters", "peers_refused_key", 6);
  EXPECT_EQ(served.Number("counters", "peers_refused"), 6);
}

TEST(Refusals, TheBrokersOwnKeyIsNobodysKey) {
  ServedRun served;
  Stranger stranger(served, served.tcp(), served.Keys().broker);
  stranger.Say(HelloOf(served, wire::PeerRole::kTool));
  served.ExpectCount("gauges", "handshakes_refused", 1);
}

// Ends the thread of that name where it is, without a word to anybody. False when there is none.
bool EndThread(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string comm;
    std::getline(std::ifstream(task.path() / "comm"), comm);
    if (comm != name) continue;
    struct sigaction action = {}, before = {};
    action.sa_handler = [](int) { ::syscall(SYS_exit, 0); };
    ::sigaction(SIGUSR2, &action, &before);
    ::syscall(SYS_tgkill, ::getpid(), std::stoi(task.path().filename()), SIGUSR2);
    const bool ended = ServedRun::Until([&] { return !std::filesystem::exists(task.path()); });
    ::sigaction(SIGUSR2, &before, nullptr);
    return ended;
  }
  return false;
}

// CURVE alone would let any key in. (That the thread's own failure ends the process: zap_test.cc.)
TEST(Refusals, WithoutTheThreadThatKnowsTheKeysNobodyComesInWithAnyKey) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the thread sanitizer waits for ever for a thread that ends like this";
#endif
  ServedRun served;
  Stranger inside(served, served.tcp(), served.Keys().actor);
  inside.Say(HelloOf(served, wire::PeerRole::kActor));
  ASSERT_TRUE(inside.Hear<wire::Welcome>());
  ASSERT_TRUE(EndThread("zap"));
  Stranger unknown(served, served.tcp(), net::GenerateKeyPair().value());
  Stranger late(served, served.tcp(), served.Keys().actor);
  unknown.Say(HelloOf(served, wire::PeerRole::kActor, 1));
  late.Say(HelloOf(served, wire::PeerRole::kActor, 2));
  served.ExpectCount("gauges", "handshakes_refused", 2);  // given up after net/'s 5 s
  EXPECT_EQ(unknown.Hear(milliseconds(50)), std::nullopt);
  EXPECT_EQ(late.Hear(milliseconds(50)), std::nullopt);
  inside.Say(wire::Heartbeat{});
  EXPECT_TRUE(inside.Hear<wire::HeartbeatAck>()) << "who is in stays";
  EXPECT_EQ(served.Status()["actors"].size(), 1u);
}

// An actor has joined; what another connection says in its name, or it itself in a learner's,
// counts for nothing.
TEST(Refusals, NobodySpeaksForAnother) {
  ServedRun served;
  Stranger actor(served, served.tcp(), served.Keys().actor);
  actor.Say(HelloOf(served, wire::PeerRole::kActor, 3));
  ASSERT_TRUE(actor.Hear<wire::Welcome>());
  actor.Say(wire::FetchLeaf{1, 0, 0, 0, 0});
  actor.Say(wire::StepDone{});
  served.ExpectCount("counters", "frames_unexpected", 2);

  Stranger thief(served, served.tcp(), served.Keys().actor);
  thief.SetIncarnation(actor.incarnation());
  thief.Say(wire::Goodbye{"in the name of actor 3"});
  EXPECT_TRUE(thief.Hear<wire::Rejoin>());
  served.ExpectCount("counters", "frames_unknown_peer", 1);
  EXPECT_EQ(served.Status()["actors"].size(), 1u) << "still there";
}

TEST(Refusals, AFrameOfAnotherRunIsToldAndDropped) {
  ServedRun served;
  Stranger stranger(served, served.ipc(), {});
  stranger.SetRunId(H("another run"));
  stranger.Say(wire::Heartbeat{});
  stranger.Say(HelloOf(served, wire::PeerRole::kActor));
  auto refused = stranger.Hear<wire::Refused>();
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, "another run");
  served.ExpectCount("counters", "frames_foreign", 2);
}

TEST(Refusals, AnOldIncarnationIsToldThatItsSlotIsTaken) {
  ServedRun served;
  Stranger old(served, served.ipc(), {}), young(served, served.ipc(), {});
  old.Say(HelloOf(served, wire::PeerRole::kActor, 1));
  ASSERT_TRUE(old.Hear<wire::Welcome>());
  young.Say(HelloOf(served, wire::PeerRole::kActor, 1));
  ASSERT_TRUE(young.Hear<wire::Welcome>());
  old.Say(wire::LeaseRequest{1, 4, false, {}});
  EXPECT_TRUE(old.Hear<wire::Refused>());
  served.ExpectCount("counters", "frames_retired_incarnation", 1);
  old.Say(HelloOf(served, wire::PeerRole::kActor, 1));
  EXPECT_TRUE(old.Hear<wire::Refused>());
  served.ExpectCount("counters", "peers_refused_retired", 1);
  young.Say(wire::Heartbeat{});
  EXPECT_TRUE(young.Hear<wire::HeartbeatAck>()) << "the slot is the young one's";
}

TEST(Refusals, AConnectionThatClaimsManySlotsGetsOne) {
  ServedRun served;
  Stranger greedy(served, served.tcp(), served.Keys().actor);
  greedy.Say(HelloOf(served, wire::PeerRole::kActor, 0));
  ASSERT_TRUE(greedy.Hear<wire::Welcome>());
  for (std::uint32_t slot = 1; slot <= 20; ++slot) {
    greedy.SetIncarnation(Incarnation(1000 + slot));
    greedy.Say(HelloOf(served, wire::PeerRole::kActor, slot));
    const auto refused = greedy.Hear<wire::Refused>();
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->reason, "this connection speaks for actor 0");
  }
  served.ExpectCount("counters", "peers_refused_connection", 20);
  EXPECT_EQ(served.Status()["actors"].size(), 1u);
  EXPECT_NE(served.Events().find("this connection speaks for actor 0"), std::string::npos);
}

// What a run remembers of its first peer must be the same when it is read again.
TEST(Refusals, TextsThatNoFileKeepsAreRefused) {
  ServedRun served;
  Stranger odd(served, served.ipc(), {});
  wire::Hello hello = HelloOf(served, wire::PeerRole::kActor);
  hello.identity.kernel_set = "fake\xff";
  odd.Say(hello);
  EXPECT_TRUE(odd.Hear<wire::Refused>());
  hello = HelloOf(served, wire::PeerRole::kActor);
  hello.name = std::string(10'000, 'x');
  odd.Say(hello);
  EXPECT_TRUE(odd.Hear<wire::Refused>());
  served.ExpectCount("counters", "peers_refused_shape", 2);
  EXPECT_FALSE(Exists(served.run() / "identity.json"));
  EXPECT_LT(served.Events().size(), 5000u);
}

TEST(Refusals, OfCountersOnlySomeAreKept) {
  ServedRun served;
  Stranger actor(served, served.ipc(), {});
  actor.Say(HelloOf(served, wire::PeerRole::kActor));
  ASSERT_TRUE(actor.Hear<wire::Welcome>());
  wire::Heartbeat beat;
  beat.counters.emplace_back(std::string(1000, 'x'), 1);
  for (int i = 0; i < 500; ++i) beat.counters.emplace_back("made up " + std::to_string(i), i);
  actor.Say(beat);
  ASSERT_TRUE(actor.Hear<wire::HeartbeatAck>());
  served.ExpectCount("counters", "peer_counters_not_kept", 437);
  EXPECT_EQ(served.Status()["actors"][0]["counters"].size(), 64u);
}

// The first bytes of a frame, as a program of another version sends them; behind them what it
// likes.
std::string OfVersion(std::string frame, std::uint16_t version) {
  frame[4] = static_cast<char>(version & 0xff);
  frame[5] = static_cast<char>(version >> 8);
  return frame;
}

TEST(Refusals, AnotherProtocolVersionIsAnsweredWithTheVersionsSpokenHere) {
  ServedRun served;
  Stranger stranger(served, served.ipc(), {});
  const std::string hello = stranger.FrameOf(HelloOf(served, wire::PeerRole::kActor));
  stranger.Send(OfVersion(hello, 77));
  auto heard = stranger.Hear();
  ASSERT_TRUE(heard);
  EXPECT_EQ(wire::DecodeVersionRefusal(std::as_bytes(std::span(*heard))), wire::kSpokenVersions);
  stranger.Send(OfVersion(hello, 77).substr(0, 6));  // it may lay out the rest as it likes
  EXPECT_TRUE(stranger.Hear());
  stranger.Send(OfVersion(hello, 0));
  EXPECT_TRUE(stranger.Hear());
  served.ExpectCount("counters", "frames_other_version", 3);
  EXPECT_EQ(served.Number("counters", "frames_malformed"), 0);
  const std::string events = served.Events();
  const std::string told =
      "a peer speaks protocol version 77; this broker speaks " + wire::kSpokenVersions.ToString();
  EXPECT_NE(events.find(told), std::string::npos) << events;
  EXPECT_EQ(events.find(told), events.rfind(told)) << "told once";
  stranger.Send(hello);
  EXPECT_TRUE(stranger.Hear<wire::Welcome>()) << "the connection itself is as good as before";
}

// What a link of this program says when the other side refuses it.
Status FailureOf(const ServedRun& served, const std::string& answer) {
  net::ServerOptions options;
  const std::filesystem::path folder = served.run() / "other";
  std::filesystem::create_directory(folder);
  std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
  options.endpoints = {"ipc://" + (folder / "broker").string()};
  auto server = net::Server::Bind(options).value();
  net::PeerLinkOptions link;
  link.endpoint = options.endpoints[0];
  link.run_id = served.run_id();
  link.incarnation = NewIncarnation();
  std::promise<Status> failed;
  net::PeerLink peer(
      link, [] { return wire::Hello(); }, [] { return wire::Heartbeat(); }, [](wire::Message) {},
      [&](Status status) { failed.set_value(std::move(status)); });
  peer.Start();
  auto future = failed.get_future();
  while (future.wait_for(milliseconds(0)) != std::future_status::ready) {
    if (auto hello = server->Receive(milliseconds(20))) {
      EXPECT_TRUE(server->Send(hello->peer, answer).ok());
    }
  }
  return future.get();
}

TEST(Refusals, APeerSaysWhichVersionsItAndTheBrokerSpeak) {
  ServedRun served;
  const Status status = FailureOf(served, wire::EncodeVersionRefusal({40, 42}));
  EXPECT_EQ(status.code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(status.message(),
            "the broker refused this process: it speaks protocol version 40 to 42, this program " +
                wire::kSpokenVersions.ToString());
}

TEST(Refusals, APeerOfAnotherRunHearsSo) {
  ServedRun served;
  const Status status = FailureOf(
      served, wire::EncodeFrame({H("another run"), Incarnation(1), 1}, wire::Refused{"another run"})
                  .value());
  EXPECT_EQ(status.message(), "the broker refused this process: another run");
}

}  // namespace
}  // namespace thresher::broker
