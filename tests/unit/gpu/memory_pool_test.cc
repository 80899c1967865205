#include "common/gpu/memory_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace thresher::gpu {
namespace {

// A device of `room` bytes, for whose blocks addresses are enough.
class FakeDevice {
 public:
  explicit FakeDevice(std::size_t room) : room_(room) {}

  MemoryPool::Source Source() {
    return {[this](std::size_t bytes) -> Result<void*> {
              if (used_ + bytes > room_) return ResourceExhausted("full");
              used_ += bytes;
              next_ += bytes;
              void* block = reinterpret_cast<void*>(next_);
              blocks_[block] = bytes;
              return block;
            },
            [this](void* block) {
              ASSERT_TRUE(blocks_.contains(block));
              used_ -= blocks_[block];
              blocks_.erase(block);
            }};
  }
  std::size_t used() const { return used_; }

 private:
  std::size_t room_, used_ = 0;
  std::uintptr_t next_ = 4096;
  std::map<void*, std::size_t> blocks_;
};

TEST(MemoryPool, RoundsUpByAnEighthAtMost) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    const std::size_t bytes = 1 + random() % (std::size_t{1} << (random() % 40 + 1));
    const std::size_t rounded = MemoryPool::Rounded(bytes);
    ASSERT_GE(rounded, bytes);
    ASSERT_EQ(rounded % 512, 0u);
    ASSERT_LE(rounded, bytes + std::max<std::size_t>(511, bytes / 8 + 1)) << bytes;
    ASSERT_EQ(MemoryPool::Rounded(rounded), rounded);
  }
}

TEST(MemoryPool, GivesABlockAgainWithoutAskingItsSource) {
  FakeDevice device(1 << 20);
  MemoryPool pool(device.Source());
  void* first = *pool.Take(1000);
  pool.Give(first);
  EXPECT_EQ(pool.usage().kept, 1024u);
  EXPECT_EQ(*pool.Take(600), first);
  EXPECT_EQ(pool.usage().allocations, 1u);
  EXPECT_EQ(*pool.Take(0), nullptr);
  pool.Give(nullptr);
  pool.Give(first);
  pool.Release();
  EXPECT_EQ(device.used(), 0u);
}

TEST(MemoryPool, ReleasesWhatItKeepsBeforeItRefuses) {
  FakeDevice device(4096);
  MemoryPool pool(device.Source());
  void* small = *pool.Take(512);
  pool.Give(small);
  auto large = pool.Take(4096);
  ASSERT_TRUE(large.ok());
  EXPECT_EQ(pool.Take(1).status().code(), StatusCode::kResourceExhausted);
  pool.Give(*large);
  EXPECT_EQ(pool.usage().high_water, 4096u);
}

TEST(MemoryPool, HoldsItsLimit) {
  FakeDevice device(1 << 20);
  MemoryPool pool(device.Source(), 2048);
  void* first = *pool.Take(1024);
  const auto refused = pool.Take(1025);
  ASSERT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("allowed: 2048"), std::string::npos);
  void* second = *pool.Take(1024);
  pool.Give(first);
  pool.Give(second);
}

TEST(MemoryPool, CountsAsANaiveModelDoes) {
  FakeDevice device(1 << 22);
  MemoryPool pool(device.Source());
  std::mt19937 random(7);
  std::vector<std::pair<void*, std::size_t>> held;
  std::size_t taken = 0;
  for (int i = 0; i < 5000; ++i) {
    if (held.empty() || random() % 2 == 0) {
      const std::size_t bytes = 1 + random() % 100000;
      const auto block = pool.Take(bytes);
      if (!block.ok()) continue;
      for (const auto& other : held) ASSERT_NE(other.first, *block);
      held.emplace_back(*block, MemoryPool::Rounded(bytes));
      taken += held.back().second;
    } else {
      std::swap(held[random() % held.size()], held.back());
      taken -= held.back().second;
      pool.Give(held.back().first);
      held.pop_back();
    }
    if (random() % 100 == 0) pool.Release();
    ASSERT_EQ(pool.usage().taken, taken);
    ASSERT_EQ(pool.usage().taken + pool.usage().kept, device.used());
    ASSERT_GE(pool.usage().high_water, device.used());
  }
  for (const auto& [block, size] : held) pool.Give(block);
}

TEST(MemoryPoolDeath, ABlockOfNobodyIsABug) {
  FakeDevice device(1 << 20);
  MemoryPool pool(device.Source());
  EXPECT_DEATH(pool.Give(&device), "did not give");
}

}  // namespace
}  // namespace thresher::gpu
