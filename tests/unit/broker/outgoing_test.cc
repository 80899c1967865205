#include "broker/outgoing.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace thresher::broker {
namespace {

const net::PeerAddress kOne = "one", kTwo = "two";

TEST(Outgoing, APeerThatDoesNotReadGetsItsPartAndNoMore) {
  Outgoing outgoing(1600);
  EXPECT_TRUE(outgoing.HasRoom(kOne));
  const SharedBytes first = outgoing.Hold(kOne, std::string(99, 'x'));
  EXPECT_TRUE(outgoing.HasRoom(kOne));
  SharedBytes second = outgoing.Hold(kOne, std::string(50, 'y'));
  EXPECT_EQ(second.view(), std::string(50, 'y'));
  EXPECT_EQ(outgoing.bytes(), 149u);
  EXPECT_FALSE(outgoing.HasRoom(kOne));
  EXPECT_TRUE(outgoing.HasRoom(kTwo));
  SharedBytes copy = second;
  second = {};
  EXPECT_FALSE(outgoing.HasRoom(kOne)) << "somebody has them still";
  copy = {};
  EXPECT_TRUE(outgoing.HasRoom(kOne));
  EXPECT_EQ(outgoing.bytes(), 99u);
}

TEST(Outgoing, AllTogetherHaveABound) {
  Outgoing outgoing(1600);
  std::vector<SharedBytes> held;
  int served = 0;
  for (int peer = 0; peer < 100; ++peer) {
    const net::PeerAddress address = std::to_string(peer);
    while (outgoing.HasRoom(address)) {
      held.push_back(outgoing.Hold(address, std::string(70, 'x')));
      ++served;
    }
  }
  EXPECT_EQ(served, 23);  // the one that reaches 1600 is the last
  EXPECT_FALSE(outgoing.HasRoom("new"));
  held.clear();
  EXPECT_EQ(outgoing.bytes(), 0u);
  EXPECT_TRUE(outgoing.HasRoom("new"));
}

TEST(Outgoing, WhatWaitsToBeSentCountsToo) {
  Outgoing outgoing(1600);
  outgoing.Queue(kOne, 100);
  EXPECT_FALSE(outgoing.HasRoom(kOne));
  outgoing.Queue(kTwo, 1500);
  EXPECT_FALSE(outgoing.HasRoom("third"));
  outgoing.Unqueue(kTwo, 1500);
  outgoing.Unqueue(kOne, 100);
  EXPECT_TRUE(outgoing.HasRoom(kOne));
  EXPECT_EQ(outgoing.bytes(), 0u);
}

TEST(Outgoing, ManyPeersThatComeAndGoLeaveNothing) {
  Outgoing outgoing(1600);
  SharedBytes kept = outgoing.Hold(kOne, std::string(100, 'x'));
  for (int peer = 0; peer < 10000; ++peer) {
    const net::PeerAddress address = std::to_string(peer);
    outgoing.Queue(address, 1);
    outgoing.Unqueue(address, 1);
  }
  EXPECT_FALSE(outgoing.HasRoom(kOne));
  kept = {};
  EXPECT_TRUE(outgoing.HasRoom(kOne));
}

TEST(Outgoing, BytesMayBeFreedByAnotherThread) {
  Outgoing outgoing(1u << 20);
  for (int round = 0; round < 100; ++round) {
    std::vector<SharedBytes> held;
    for (int i = 0; i < 10; ++i) held.push_back(outgoing.Hold(kOne, std::string(10, 'x')));
    std::jthread([held = std::move(held)]() mutable { held.clear(); });
    held = {outgoing.Hold(kTwo, "z")};
  }
  EXPECT_EQ(outgoing.bytes(), 0u);
}

}  // namespace
}  // namespace thresher::broker
