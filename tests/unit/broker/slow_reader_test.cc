// A peer that asks for weights and reads nothing: the broker's memory does not grow, and others get
// theirs.
#include <gtest/gtest.h>

#include "common/wire/frame.h"
#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

TEST(SlowReader, WhatItAsksForWaitsOnceItsPartIsOnItsWay) {
  ServedRun served({"broker.max_message_bytes=65536", "broker.memory_bytes=1048576"});
  FakeActor actor(served.config(), served.run(), served.run_id(), 0);
  FakeLearnerOptions options;
  options.stop_after = 2;
  FakeLearner learner(served.config(), served.run(), served.run_id(), options);
  ASSERT_TRUE(ServedRun::Until([&] { return served.Status()["weights"]["newest"] == "0.2"; }));

  // No room of its own either: what it does not read stays with the broker.
  net::ClientOptions client_options;
  client_options.endpoint = served.ipc();
  client_options.high_water_mark = 1;
  auto reader = net::Client::Connect(client_options).value();
  std::uint64_t sequence = 0;
  const Incarnation incarnation = NewIncarnation();
  auto say = [&](const wire::Message& message) {
    auto frame = wire::EncodeFrame({served.run_id(), incarnation, ++sequence}, message).value();
    ASSERT_TRUE(ServedRun::Until([&] { return reader->Send(frame).ok(); }));
  };
  wire::Hello hello;
  hello.role = wire::PeerRole::kTool;
  say(hello);
  ASSERT_TRUE(reader->Receive(milliseconds(10000)));
  const double limit = served.Status()["queues"]["to_peers"]["limit_bytes"];
  EXPECT_EQ(limit, 131072);
  double most = 0;
  auto look = [&] {
    most = std::max(most, served.Status()["queues"]["to_peers"]["bytes"].get<double>());
  };
  for (int i = 0; i < 400; ++i) {
    say(wire::ChunkGet{V(2), static_cast<std::uint32_t>(i % 2)});
    if (i % 20 == 0) look();
  }
  served.ExpectCount("counters", "chunks_held_back", 1);
  look();
  EXPECT_GT(most, 0);
  EXPECT_LE(most, limit / 16 + 5000) << "its part, and one answer";

  FakePeer other(served.config(), served.run(), served.run_id(), wire::PeerRole::kTool, 1);
  other.Post(wire::ChunkGet{V(2), 0});
  bool got = false;
  while (auto message = other.Next(milliseconds(10000))) {
    if ((got = std::holds_alternative<wire::Chunk>(*message))) break;
  }
  EXPECT_TRUE(got);
  // It reads after all: everything that it asked for last is there, and nothing is left behind.
  while (reader->Receive(milliseconds(500))) continue;
  EXPECT_EQ(served.Status()["queues"]["to_peers"]["bytes"], 0);
}

}  // namespace
}  // namespace thresher::broker
