#include "broker/peer_table.h"

#include <gtest/gtest.h>

namespace thresher::broker {
namespace {

wire::Hello ActorHello(std::uint32_t slot) {
  wire::Hello hello;
  hello.role = wire::PeerRole::kActor;
  hello.index = slot;
  return hello;
}

TEST(PeerTable, ANewIncarnationTakesTheSlotAndTheOldOneIsKnownAsSuch) {
  PeerTable table;
  Peer* peer = nullptr;
  ASSERT_TRUE(table.Register(ActorHello(1), "a", Incarnation(10), "local", {}).ok());
  EXPECT_EQ(table.Identify("a", Incarnation(10), {}, &peer), PeerTable::Sender::kKnown);
  EXPECT_TRUE(table.NoteCounter(*peer, "steps", 5));
  auto second = table.Register(ActorHello(1), "b", Incarnation(11), "local", {});
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(second->replaced);
  EXPECT_EQ(table.Identify("a", Incarnation(10), {}, &peer), PeerTable::Sender::kRetired);
  EXPECT_EQ(table.Register(ActorHello(1), "a", Incarnation(10), "local", {}).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(table.WithRole(wire::PeerRole::kActor).size(), 1u);
  EXPECT_EQ(table.ActorCounters().at("steps"), 5) << "counts of dead processes are not forgotten";
}

TEST(PeerTable, AReconnectKeepsTheIncarnationUnderItsNewAddress) {
  PeerTable table;
  Peer* peer = nullptr;
  ASSERT_TRUE(table.Register(ActorHello(1), "a", Incarnation(10), "local", {}).ok());
  auto again = table.Register(ActorHello(1), "b", Incarnation(10), "local", {});
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->returned);
  EXPECT_FALSE(again->replaced);
  EXPECT_EQ(table.Identify("b", Incarnation(10), {}, &peer), PeerTable::Sender::kKnown);
  EXPECT_EQ(table.Identify("a", Incarnation(10), {}, &peer), PeerTable::Sender::kUnknown);
}

TEST(PeerTable, StrangersAndForgedIncarnationsAreUnknown) {
  PeerTable table;
  Peer* peer = nullptr;
  EXPECT_EQ(table.Identify("a", Incarnation(1), {}, &peer), PeerTable::Sender::kUnknown);
  ASSERT_TRUE(table.Register(ActorHello(1), "a", Incarnation(10), "local", {}).ok());
  EXPECT_EQ(table.Identify("a", Incarnation(12), {}, &peer), PeerTable::Sender::kUnknown);
}

TEST(PeerTable, TheKeyMustFitTheRole) {
  PeerTable table;
  EXPECT_TRUE(table.Register(ActorHello(1), "a", Incarnation(1), "actor", {}).ok());
  EXPECT_EQ(table.Register(ActorHello(2), "b", Incarnation(2), "learner", {}).status().code(),
            StatusCode::kPermissionDenied);
}

TEST(PeerTable, ToolsDoNotPushEachOtherOut) {
  PeerTable table;
  wire::Hello tool;
  tool.role = wire::PeerRole::kTool;
  ASSERT_TRUE(table.Register(tool, "a", Incarnation(1), "local", {}).ok());
  ASSERT_TRUE(table.Register(tool, "b", Incarnation(2), "local", {}).ok());
  EXPECT_EQ(table.WithRole(wire::PeerRole::kTool).size(), 2u);
}

TEST(PeerTable, OfManyToolsTheMostSilentGo) {
  PeerTable table;
  wire::Hello tool;
  tool.role = wire::PeerRole::kTool;
  const auto at = [](int second) { return TimePoint(std::chrono::seconds(second)); };
  for (int i = 1; i <= 1000; ++i) {
    const std::string address = "tool " + std::to_string(i);
    ASSERT_TRUE(table.Register(tool, address, Incarnation(i), "local", at(i)).ok());
    Peer* first = nullptr;
    EXPECT_EQ(table.Identify("tool 1", Incarnation(1), at(i), &first), PeerTable::Sender::kKnown);
  }
  EXPECT_EQ(table.All().size(), 64u);
  Peer* peer = nullptr;
  EXPECT_EQ(table.Identify("tool 2", Incarnation(2), at(1001), &peer), PeerTable::Sender::kUnknown);
}

TEST(PeerTable, AConnectionSpeaksForOneSlot) {
  PeerTable table;
  ASSERT_TRUE(table.Register(ActorHello(1), "a", Incarnation(10), "local", {}).ok());
  const Status other = table.Register(ActorHello(2), "a", Incarnation(10), "local", {}).status();
  EXPECT_EQ(other.code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(other.message(), "this connection speaks for actor 1");
  wire::Hello tool;
  tool.role = wire::PeerRole::kTool;
  EXPECT_FALSE(table.Register(tool, "a", Incarnation(11), "local", {}).ok());
  EXPECT_TRUE(table.Register(ActorHello(1), "a", Incarnation(11), "local", {}).ok())
      << "its own slot, in a new process";
  Peer* peer = nullptr;
  ASSERT_EQ(table.Identify("a", Incarnation(11), {}, &peer), PeerTable::Sender::kKnown);
  table.Remove(*peer);
  EXPECT_TRUE(table.Register(ActorHello(2), "a", Incarnation(12), "local", {}).ok());
}

// Whatever actors make up: there are never more slots, and who speaks keeps its own.
TEST(PeerTable, ActorsBeyondTheLimitGetTheSlotsOfSilentOnes) {
  PeerTable table({.actors = 3, .silence = std::chrono::seconds(5)});
  const auto at = [](int second) { return TimePoint(std::chrono::seconds(second)); };
  for (std::uint32_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(table
                    .Register(ActorHello(i), std::to_string(i), Incarnation(i + 1), "local",
                              at(static_cast<int>(i)))
                    .ok());
  }
  const Status full = table.Register(ActorHello(9), "9", Incarnation(9), "local", at(4)).status();
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(), "3 actors take part, and none is silent; allowed: 3");
  EXPECT_TRUE(table.Register(ActorHello(1), "again", Incarnation(7), "local", at(4)).ok())
      << "there already";
  Peer* peer = nullptr;
  ASSERT_EQ(table.Identify("0", Incarnation(1), at(5), &peer), PeerTable::Sender::kKnown);
  EXPECT_FALSE(table.Register(ActorHello(9), "9", Incarnation(9), "local", at(7)).ok());
  EXPECT_EQ(table.GivesWay(ActorHello(9), at(8)), table.Find(wire::PeerRole::kActor, 2));
  EXPECT_TRUE(table.Register(ActorHello(9), "9", Incarnation(9), "local", at(8)).ok());
  EXPECT_EQ(table.All().size(), 3u);
  EXPECT_EQ(table.Find(wire::PeerRole::kActor, 2), nullptr) << "the most silent one went";
  EXPECT_EQ(table.Identify("2", Incarnation(3), at(8), &peer), PeerTable::Sender::kUnknown)
      << "and may say Hello again";
}

TEST(PeerTable, CountersOfPastProcessesAreSummedForSomeNamesAlone) {
  PeerTable table;
  for (int i = 1; i <= 1000; ++i) {
    auto registered = table.Register(ActorHello(1), "a", Incarnation(i), "local", {});
    ASSERT_TRUE(registered.ok());
    EXPECT_TRUE(table.NoteCounter(*registered->peer, "steps", 1));
    (void)table.NoteCounter(*registered->peer, "made up " + std::to_string(i), 1);
  }
  EXPECT_EQ(table.ActorCounters().at("steps"), 1000);
  EXPECT_EQ(table.ActorCounters().size(), CounterNames::kMostNames);
}

}  // namespace
}  // namespace thresher::broker
