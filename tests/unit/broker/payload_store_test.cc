#include "broker/payload_store.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

TrajectoryId Id(std::uint64_t item) { return {Stream::kTrain, 0, item, 0}; }

// `count` slices of `bytes` bytes each, of one frame with `rest` bytes beside them.
std::vector<SharedBytes> Frame(std::size_t count, std::size_t bytes, std::size_t rest = 0) {
  std::string text(count * bytes + rest, '.');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / bytes % 26);
  const SharedBytes frame(std::move(text));
  std::vector<SharedBytes> slices;
  for (std::size_t i = 0; i < count; ++i) slices.push_back(frame.Slice(i * bytes, bytes));
  return slices;
}

TEST(PayloadStoreTest, KeepsSlicesWithoutCopyingWhileMostOfTheirFrameIsNeeded) {
  PayloadStore store("/nowhere", 1 << 20);
  const auto slices = Frame(4, 100, 24);
  for (std::size_t i = 0; i < 4; ++i) store.Put(Id(i), slices[i]);
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 424u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(store.Get(Id(i))->data(), slices[i].data());
}

TEST(PayloadStoreTest, ASmallSliceDoesNotKeepALargeFrame) {
  PayloadStore store("/nowhere", 16u << 20);
  store.Put(Id(1), Frame(1, 1000, 8u << 20)[0]);
  EXPECT_EQ(store.cached_bytes(), (8u << 20) + 1000);
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 1000u);
  EXPECT_EQ(store.Get(Id(1))->owner_bytes(), 1000u);
  EXPECT_EQ(store.Get(Id(1))->view(), std::string(1000, 'a'));
}

TEST(PayloadStoreTest, WhatIsLeftOfAFrameIsCopiedOutOfIt) {
  PayloadStore store("/nowhere", 1 << 20);
  const auto slices = Frame(4, 100);
  for (std::size_t i = 0; i < 4; ++i) store.Put(Id(i), slices[i]);
  store.Release(Id(0));
  store.Release(Id(1));
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 400u);  // half of it is still needed
  store.Release(Id(2));
  EXPECT_EQ(store.cached_bytes(), 400u);
  store.Settle();
  EXPECT_EQ(store.cached_bytes(), 100u);
  EXPECT_EQ(store.Get(Id(3))->view(), slices[3].view());
  EXPECT_NE(store.Get(Id(3))->data(), slices[3].data());
  store.Release(Id(3));
  EXPECT_EQ(store.cached_bytes(), 0u);
}

TEST(PayloadStoreTest, TheOldestMakeRoom) {
  PayloadStore store("/nowhere", 1000);
  for (std::size_t i = 0; i < 20; ++i) store.Put(Id(i), Frame(1, 100)[0]);
  EXPECT_EQ(store.cached_bytes(), 1000u);
  EXPECT_EQ(store.Get(Id(10))->size(), 100u);
  EXPECT_FALSE(store.Get(Id(9)).ok());  // neither here nor on the disk
}

// Against one that counts every owner anew.
TEST(PayloadStoreTest, CountsWhatItKeepsInMemory) {
  std::mt19937 random(7);
  PayloadStore store("/nowhere", 20000);
  std::map<std::uint64_t, SharedBytes> put;
  for (int round = 0; round < 3000; ++round) {
    const auto slices = Frame(1 + random() % 8, 1 + random() % 200, random() % 400);
    for (const SharedBytes& slice : slices) {
      const std::uint64_t item = random() % 300;
      if (random() % 4 > 0) store.Put(Id(item), slice), put[item] = slice;
    }
    for (int i = 0; i < 4; ++i) store.Release(Id(random() % 300));
    const bool settled = random() % 3 == 0;
    if (settled) store.Settle();
    std::map<const void*, std::pair<std::size_t, std::size_t>> owners;  // whole, needed
    for (std::uint64_t item = 0; item < 300; ++item) {
      auto bytes = store.Get(Id(item));
      if (!bytes.ok()) continue;
      EXPECT_EQ(bytes->view(), put[item].view());
      owners[bytes->owner()].first = bytes->owner_bytes();
      owners[bytes->owner()].second += bytes->size();
    }
    std::size_t whole = 0;
    for (const auto& [owner, counts] : owners) {
      whole += counts.first;
      if (settled) {
        EXPECT_GE(2 * counts.second, counts.first);
      }
    }
    ASSERT_EQ(store.cached_bytes(), whole);
    ASSERT_LE(store.cached_bytes(), 20000u);
  }
}

}  // namespace
}  // namespace thresher::broker
