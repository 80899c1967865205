#include "tests/support/sim/network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const std::string kEndpoint = "ipc:///run/broker";

class NetworkTest : public testing::Test {
 protected:
  ~NetworkTest() override { scheduler_.EndAll(); }  // sockets of processes end before the network
  std::unique_ptr<net::Server> Listen(const std::string& endpoint = kEndpoint) {
    net::ServerOptions options;
    options.endpoints = {endpoint};
    options.high_water_mark = high_water_mark_;
    auto server = network_.Bind(options);
    EXPECT_TRUE(server.ok());
    return std::move(server).value();
  }
  std::unique_ptr<net::Client> Dial(const std::string& endpoint = kEndpoint) {
    net::ClientOptions options;
    options.endpoint = endpoint;
    options.high_water_mark = high_water_mark_;
    auto client = network_.Connect(options);
    EXPECT_TRUE(client.ok());
    return std::move(client).value();
  }
  // A server that writes down what it gets and answers each frame with itself.
  Process& StartEcho(bool answers = true) {
    return scheduler_.Start("echo", 0, [this, answers] {
      auto server = Listen();
      while (true) {
        auto received = server->Receive(seconds(1));
        if (!received) continue;
        heard_.push_back(received->bytes.ToString());
        peers_.push_back(received->peer);
        if (answers) (void)server->Send(received->peer, received->bytes).ok();
      }
      return 0;
    });
  }
  // Sends the numbers below `count`, and then reads for a while.
  Process& StartCounter(int count, Duration pause, int first = 0) {
    return scheduler_.Start("counter", 1, [this, count, pause, first] {
      auto client = Dial();
      for (int i = first; i < first + count; ++i) {
        EXPECT_TRUE(client->Send(std::to_string(i)).ok());
        scheduler_.Sleep(pause, "sleeps");
      }
      while (true) {
        auto bytes = client->Receive(seconds(1));
        if (bytes) answers_.push_back(bytes->ToString());
      }
      return 0;
    });
  }
  void RunFor(Duration time) {
    scheduler_.Run([] { return false; }, scheduler_.Now() + time);
  }
  static bool Ascends(const std::vector<std::string>& numbers) {
    return std::is_sorted(numbers.begin(), numbers.end(),
                          [](const auto& a, const auto& b) { return std::stoi(a) < std::stoi(b); });
  }

  int high_water_mark_ = 1000;
  Trace trace_;
  Scheduler scheduler_{1, trace_};
  Network network_{scheduler_, 1};
  std::vector<std::string> heard_, answers_;
  std::vector<net::PeerAddress> peers_;
};

TEST_F(NetworkTest, FramesOfAConnectionArriveInOrderBothWays) {
  StartEcho();
  StartCounter(100, milliseconds(1));
  RunFor(seconds(10));
  ASSERT_EQ(heard_.size(), 100u);
  EXPECT_TRUE(Ascends(heard_));
  EXPECT_EQ(answers_, heard_);
}

TEST_F(NetworkTest, AClientQueuesUntilSomebodyListens) {
  StartCounter(10, milliseconds(1));
  RunFor(seconds(3));
  StartEcho();
  RunFor(seconds(10));
  EXPECT_EQ(heard_.size(), 10u);
}

TEST_F(NetworkTest, ACutLosesWhatIsOnItsWayAndKeepsAddressAndOrder) {
  network_.faults.cut = 0.03;
  StartEcho();
  StartCounter(3000, milliseconds(1));
  RunFor(seconds(1000));
  EXPECT_LT(heard_.size(), 3000u);
  EXPECT_GT(heard_.size(), 300u);
  EXPECT_TRUE(Ascends(heard_));
  EXPECT_TRUE(Ascends(answers_));
  EXPECT_EQ(std::count(peers_.begin(), peers_.end(), peers_[0]),
            static_cast<std::ptrdiff_t>(peers_.size()));
  EXPECT_GT(trace_.counts().at("connection cut"), 0u);
  EXPECT_GT(trace_.counts().at("silent reconnect"), 0u);
}

TEST_F(NetworkTest, AStallDelaysAndLosesNothing) {
  network_.faults.stall = 0.02;
  StartEcho();
  StartCounter(200, milliseconds(1));
  RunFor(seconds(100));
  EXPECT_EQ(heard_.size(), 200u);
  EXPECT_EQ(answers_.size(), 200u);
  EXPECT_GT(trace_.counts().at("connection stalled"), 0u);
}

TEST_F(NetworkTest, AHalfOpenConnectionLosesInSilence) {
  network_.faults.stall = 0.02;
  network_.faults.half_open = 1;
  StartEcho();
  StartCounter(200, milliseconds(1));
  RunFor(seconds(100));
  EXPECT_LT(answers_.size(), 200u);
  EXPECT_GT(trace_.counts().at("half-open connection"), 0u);
}

TEST_F(NetworkTest, FramesMayComeTwiceAfterAReconnect) {
  network_.faults.cut = 0.05;
  network_.faults.duplicate = 1;
  StartEcho(false);
  StartCounter(200, milliseconds(1));
  RunFor(seconds(100));
  EXPECT_FALSE(Ascends(heard_) && std::adjacent_find(heard_.begin(), heard_.end()) == heard_.end());
  EXPECT_GT(trace_.counts().at("frame duplicated"), 0u);
}

TEST_F(NetworkTest, ConnectionsOvertakeOneAnother) {
  StartEcho(false);
  StartCounter(100, milliseconds(1), 0);
  StartCounter(100, milliseconds(1), 0);
  RunFor(seconds(100));
  EXPECT_EQ(heard_.size(), 200u);
  EXPECT_GT(trace_.counts().at("frame overtaken"), 0u);
}

TEST_F(NetworkTest, AKilledServerLosesItsQueuesAndClientsFindTheNext) {
  Process& first = StartEcho();
  StartCounter(400, milliseconds(10));
  RunFor(seconds(2));
  const std::size_t before = heard_.size();
  scheduler_.Kill(first);
  StartEcho();
  RunFor(seconds(20));
  EXPECT_GT(before, 150u);
  EXPECT_GT(heard_.size(), before + 150);
  EXPECT_TRUE(Ascends(heard_));
}

TEST_F(NetworkTest, ASendToAPeerThatIsGoneOrFullIsAnError) {
  high_water_mark_ = 4;
  std::vector<StatusCode> codes;
  scheduler_.Start("server", 0, [&] {
    auto server = Listen();
    EXPECT_EQ(server->Send("nobody", "hello").code(), StatusCode::kUnavailable);
    auto received = server->Receive(seconds(5));
    network_.StallAll(seconds(1));
    for (int i = 0; i < 6; ++i) codes.push_back(server->Send(received->peer, "x").code());
    return 0;
  });
  scheduler_.Start("client", 1, [&] {
    auto client = Dial();
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(client->Send("hello").ok());
    EXPECT_EQ(client->Send("hello").code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(client->Send(std::string(9u << 20, 'x')).code(), StatusCode::kOutOfRange);
    scheduler_.Sleep(seconds(10), "sleeps");
    return 0;
  });
  RunFor(seconds(20));
  EXPECT_EQ(std::count(codes.begin(), codes.end(), StatusCode::kOk), 4);
  EXPECT_EQ(codes.back(), StatusCode::kResourceExhausted);
}

TEST_F(NetworkTest, AWakeEndsAReceive) {
  TimePoint woke{};
  net::Client* client = nullptr;
  scheduler_.Start("client", 1, [&] {
    auto own = Dial();
    client = own.get();
    EXPECT_FALSE(own->Receive(seconds(10)));
    woke = scheduler_.Now();
    return 0;
  });
  scheduler_.After(seconds(1), [&] { client->Wake(); });
  RunFor(seconds(20));
  EXPECT_EQ(woke, TimePoint{seconds(1)});
}

TEST_F(NetworkTest, KeysDecideWhoIsHeardAndAsWhom) {
  auto pair = [](char c) { return net::KeyPair{std::string(40, c), ""}; };
  net::KeyRing keys{pair('b'), pair('a'), pair('l'), pair('t')};
  std::string endpoint, user;
  std::uint64_t refused = 0;
  scheduler_.Start("server", 0, [&] {
    net::ServerOptions options;
    options.endpoints = {"tcp://10.0.0.1:0"};
    options.keys = keys;
    auto server = network_.Bind(options).value();
    endpoint = server->endpoints()[0];
    while (auto received = server->Receive(seconds(5))) user += received->key_user_id;
    refused = server->refused();
    return 0;
  });
  RunFor(milliseconds(1));
  ASSERT_NE(endpoint, "tcp://10.0.0.1:0");
  for (char key : {'l', 'x'}) {
    scheduler_.Start("client", 1, [&, key] {
      net::ClientOptions options{endpoint, pair(key), std::string(40, 'b')};
      auto client = network_.Connect(options).value();
      (void)client->Send("hello").ok();
      scheduler_.Sleep(seconds(2), "sleeps");
      return 0;
    });
  }
  RunFor(seconds(20));
  EXPECT_EQ(user, "learner");
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace thresher::sim
