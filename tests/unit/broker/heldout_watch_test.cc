#include "broker/heldout_watch.h"

#include <gtest/gtest.h>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

Hash128 Instance(std::uint64_t number) { return H("instance " + std::to_string(number)); }

TEST(HeldoutWatch, IsExactWhileEverythingFits) {
  HeldoutWatch watch(1000);
  for (std::uint64_t i = 0; i < 500; ++i) watch.Trained(Instance(i));
  for (std::uint64_t i = 490; i < 600; ++i) watch.Evaluated(Instance(i));
  for (std::uint64_t i = 490; i < 600; ++i) watch.Evaluated(Instance(i));
  EXPECT_EQ(watch.overlap(), 10u) << "counted per instance";
  EXPECT_EQ(watch.share(), 1);
  watch.Trained({});
  watch.Evaluated({});
  EXPECT_EQ(watch.overlap(), 10u) << "no instance is none";
}

TEST(HeldoutWatch, SeesItsShareOfALeakInBoundedMemory) {
  HeldoutWatch watch(1000);
  for (std::uint64_t i = 0; i < 100000; ++i) {
    watch.Trained(Instance(i));
    ASSERT_LE(watch.remembered(), 1000u);
  }
  EXPECT_LT(watch.share(), 0.02);
  EXPECT_EQ(watch.overlap(), 0u);
  for (std::uint64_t i = 0; i < 20000; ++i) watch.Evaluated(Instance(i));
  const double expected = 20000 * watch.share();
  EXPECT_GT(static_cast<double>(watch.overlap()), expected / 2);
  EXPECT_LT(static_cast<double>(watch.overlap()), expected * 2);
}

TEST(HeldoutWatch, WhatItFoundStaysFound) {
  HeldoutWatch watch(10);
  watch.Trained(Instance(1));
  watch.Evaluated(Instance(1));
  for (std::uint64_t i = 2; i < 10000; ++i) watch.Trained(Instance(i));
  EXPECT_EQ(watch.overlap(), 1u);
}

}  // namespace
}  // namespace thresher::broker
