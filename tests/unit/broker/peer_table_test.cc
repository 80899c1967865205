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

}  // namespace
}  // namespace thresher::broker
