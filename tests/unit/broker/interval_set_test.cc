#include "broker/interval_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace thresher::broker {
namespace {

TEST(IntervalSet, HoldsWhatANaiveSetHoldsInRangesThatDoNotTouch) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    IntervalSet set;
    std::set<std::uint64_t> naive;
    for (int step = 0; step < 30; ++step) {
      const std::uint64_t begin = random() % 100, end = begin + random() % 12;
      set.Insert(begin, end);
      for (std::uint64_t n = begin; n < end; ++n) naive.insert(n);
      for (std::uint64_t n = 0; n < 115; ++n) ASSERT_EQ(set.Contains(n), naive.contains(n)) << n;
      ASSERT_EQ(set.size(), naive.size());
      std::uint64_t last = 0;
      for (const auto& [first, behind] : set.ranges()) {
        ASSERT_TRUE(first < behind && (first > last || &first == &set.ranges().begin()->first));
        last = behind;
      }
    }
  }
}

TEST(IntervalSet, WhatComesInOrderIsOneRange) {
  IntervalSet set;
  for (std::uint64_t n = 0; n < 10000; ++n) set.Insert(n, n + 1);
  EXPECT_EQ(set.ranges().size(), 1u);
  EXPECT_EQ(set.size(), 10000u);
}

}  // namespace
}  // namespace thresher::broker
