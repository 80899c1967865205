#include "broker/peer_counters.h"

#include <gtest/gtest.h>

namespace thresher::broker {
namespace {

using Named = std::map<std::string, double>;

TEST(PeerCounters, EachPeerHasItsOwnUnderNamesThatAllShare) {
  CounterNames names;
  PeerCounters one, other;
  EXPECT_TRUE(names.Note(one, "tokens", 3));
  EXPECT_TRUE(names.Note(other, "seconds", 4.5));
  EXPECT_TRUE(names.Note(other, "tokens", 7));
  EXPECT_TRUE(names.Note(one, "tokens", 5));
  EXPECT_EQ(names.Named(one), (Named{{"tokens", 5}}));
  EXPECT_EQ(names.Named(other), (Named{{"seconds", 4.5}, {"tokens", 7}}));
}

TEST(PeerCounters, WhatPeersMakeUpIsBounded) {
  CounterNames names;
  PeerCounters first;
  EXPECT_FALSE(names.Note(first, std::string(CounterNames::kMostNameBytes + 1, 'n'), 1));
  EXPECT_TRUE(names.Note(first, std::string(CounterNames::kMostNameBytes, 'n'), 1));
  for (std::size_t i = 1; i < CounterNames::kMostOfPeer; ++i) {
    EXPECT_TRUE(names.Note(first, "of the first " + std::to_string(i), 1));
  }
  EXPECT_FALSE(names.Note(first, "one more", 1));
  EXPECT_TRUE(names.Note(first, "of the first 1", 2)) << "it goes on counting";

  // One name for each of many peers: only what the first had, and what there is room for.
  std::size_t kept = 0;
  for (std::size_t i = 0; i < 2 * CounterNames::kMostNames; ++i) {
    PeerCounters peer;
    kept += names.Note(peer, "of another " + std::to_string(i), 1) ? 1 : 0;
    EXPECT_TRUE(names.Note(peer, "of the first 1", 1)) << "a known name is";
  }
  EXPECT_EQ(kept, CounterNames::kMostNames - CounterNames::kMostOfPeer);
}

}  // namespace
}  // namespace thresher::broker
