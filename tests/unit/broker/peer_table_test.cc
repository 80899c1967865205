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
  peer->counters["steps"] = 5;
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

TEST(PeerTable, CountersOfPastProcessesAreSummedForSomeNamesAlone) {
  PeerTable table;
  for (int i = 1; i <= 1000; ++i) {
    auto registered = table.Register(ActorHello(1), "a", Incarnation(i), "local", {});
    ASSERT_TRUE(registered.ok());
    registered->peer->counters = {{"steps", 1}, {"made up " + std::to_string(i), 1}};
  }
  EXPECT_EQ(table.ActorCounters().at("steps"), 1000);
  EXPECT_LE(table.ActorCounters().size(), 258u);
}

}  // namespace
}  // namespace thresher::broker
