#include "learner/buckets.h"

#include <gtest/gtest.h>

#include <numeric>

#include "learner/gradient.h"

namespace thresher::learner {
namespace {

constexpr std::uint64_t kBlockBytes = kNormBlock * sizeof(float);

const std::size_t kCounts[] = {1,
                               kNormBlock - 1,
                               kNormBlock,
                               kNormBlock + 1,
                               3 * kNormBlock + 7,
                               8 * kNormBlock,
                               13 * kNormBlock + 100};

TEST(Buckets, AreWholeBlocksInOrderAndAllOfTheVector) {
  for (std::size_t count : kCounts) {
    for (std::uint64_t bytes : {std::uint64_t{1}, kBlockBytes, 3 * kBlockBytes, 64 * kBlockBytes}) {
      std::size_t next = 0;
      for (const Piece& bucket : CutBuckets(count, bytes)) {
        EXPECT_EQ(bucket.begin, next);
        EXPECT_EQ(bucket.begin % kNormBlock, 0u);
        EXPECT_GT(bucket.count, 0u);
        EXPECT_LE(bucket.count * sizeof(float), std::max(bytes, kBlockBytes));
        next = bucket.end();
      }
      EXPECT_EQ(next, count);
    }
  }
  EXPECT_TRUE(CutBuckets(0, kBlockBytes).empty());
}

TEST(Shards, AreDisjointBlocksAndTogetherEverything) {
  for (std::uint32_t ranks : {1u, 2u, 4u, 8u, 16u}) {
    for (std::size_t count : kCounts) {
      for (std::uint64_t blocks : {1u, 5u, 64u}) {
        const auto buckets = CutBuckets(count, blocks * kBlockBytes);
        std::vector<int> owners(count, 0);
        std::size_t total = 0;
        for (std::uint32_t rank = 0; rank < ranks; ++rank) {
          const auto shard = ShardOf(LearnerRank(rank), ranks, buckets);
          total += CountOf(shard);
          for (const Piece& piece : shard) {
            EXPECT_EQ(piece.begin % kNormBlock, 0u);
            EXPECT_TRUE(piece.count % kNormBlock == 0 || piece.end() == count);
            ++owners[piece.begin];
            ++owners[piece.end() - 1];
          }
        }
        EXPECT_EQ(total, count) << ranks << " ranks";
      }
    }
  }
}

TEST(Shards, ArePackedAndUnpacked) {
  const std::size_t count = 5 * kNormBlock + 9;
  std::vector<float> flat(count);
  std::iota(flat.begin(), flat.end(), 0.0f);
  const auto buckets = CutBuckets(count, 2 * kBlockBytes);
  std::vector<float> again(count, -1.0f);
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    const auto shard = ShardOf(LearnerRank(rank), 4, buckets);
    std::vector<float> packed(CountOf(shard));
    Pack(shard, flat, packed);
    Unpack(shard, packed, again);
  }
  EXPECT_EQ(again, flat);
}

}  // namespace
}  // namespace thresher::learner
