#include "learner/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <thread>

#include "learner/gather.h"

namespace thresher::learner {
namespace {

using namespace std::chrono_literals;

TEST(RewardPermutation, IsAPermutationAndAPureFunction) {
  for (std::size_t n : {0u, 1u, 2u, 17u, 256u}) {
    std::vector<std::size_t> order = RewardPermutation(7, 3, n);
    EXPECT_EQ(order, RewardPermutation(7, 3, n));
    std::sort(order.begin(), order.end());
    std::vector<std::size_t> all(n);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(order, all);
  }
}

TEST(RewardPermutation, DiffersByStepAndSeed) {
  std::set<std::vector<std::size_t>> seen;
  for (std::uint64_t seed : {1u, 2u}) {
    for (std::uint32_t step = 0; step < 50; ++step) seen.insert(RewardPermutation(seed, step, 64));
  }
  EXPECT_EQ(seen.size(), 100u);
}

TEST(RewardPermutation, SendsEveryRewardEverywhereAlike) {
  // 6 orders of 3, 6000 draws: each 1000 times but for sampling error (sd 29; 5 sd).
  std::map<std::vector<std::size_t>, int> count;
  for (std::uint32_t step = 0; step < 6000; ++step) ++count[RewardPermutation(11, step, 3)];
  ASSERT_EQ(count.size(), 6u);
  for (const auto& [order, times] : count) EXPECT_NEAR(times, 1000, 145);
}

TEST(BlobReader, ReadsBackWhatWasWritten) {
  BlobWriter writer;
  writer.Put(std::uint32_t{7});
  writer.Put(2.5);
  writer.Put(Hash128{1, 2});
  const std::string bytes = writer.Take();
  BlobReader reader(bytes);
  EXPECT_FALSE(reader.done());
  EXPECT_EQ(reader.Get<std::uint32_t>(), 7u);
  EXPECT_EQ(reader.Get<double>(), 2.5);
  EXPECT_EQ(reader.Get<Hash128>(), (Hash128{1, 2}));
  EXPECT_TRUE(reader.done());
  EXPECT_DEATH((void)reader.Get<char>(), "too short");
}

TEST(GatherBlobs, GivesEveryRankTheBlobsOfAllInRankOrder) {
  for (std::uint32_t ranks : {1u, 2u, 4u}) {
    auto group = comm::MakeLocalGroup(ranks, 30s);
    // Lengths: all empty; growing from empty; shrinking; with zero bytes inside.
    for (int round = 0; round < 3; ++round) {
      std::vector<std::string> blobs;
      for (std::uint32_t r = 0; r < ranks; ++r) {
        const std::size_t length = round == 0 ? 0 : round == 1 ? 5 * r : 3 * (ranks - r);
        blobs.emplace_back(length, static_cast<char>(r));
      }
      std::vector<Result<std::vector<std::string>>> got(ranks, Status(InternalError("not run")));
      std::vector<std::jthread> threads;
      for (std::uint32_t r = 0; r < ranks; ++r) {
        threads.emplace_back([&, r] { got[r] = GatherBlobs(*group[r], blobs[r], "test"); });
      }
      threads.clear();
      for (std::uint32_t r = 0; r < ranks; ++r) {
        ASSERT_TRUE(got[r].ok()) << got[r].status().ToString();
        EXPECT_EQ(*got[r], blobs) << "rank " << r << " of " << ranks << " round " << round;
      }
    }
  }
}

TEST(GatherBlobs, ReportsAPeerThatDoesNotCome) {
  auto group = comm::MakeLocalGroup(2, 50ms);
  auto result = GatherBlobs(*group[0], "here", "batch entries");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(result.status().message().find("batch entries"), std::string::npos);
}

}  // namespace
}  // namespace thresher::learner
