#include "learner/gradient_sync.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "common/comm/flight_recorder.h"
#include "learner/gradient.h"
#include "tests/unit/comm/comm_testing.h"

namespace thresher::learner {
namespace {

using namespace std::chrono_literals;
using comm::testing::Group;
using comm::testing::HardValues;
using comm::testing::OnAllRanks;
using comm::testing::PairwiseSum;
using ::testing::HasSubstr;

constexpr std::size_t kCount = 5 * kNormBlock + 123;

std::vector<std::vector<float>> Parts(std::uint32_t ranks) {
  std::vector<std::vector<float>> parts;
  for (std::uint32_t r = 0; r < ranks; ++r) parts.push_back(HardValues(r, kCount));
  return parts;
}

GradientSyncOptions Options(bool scatter, bool overlap) {
  return {kCount, 2 * kNormBlock * sizeof(float), scatter, overlap};
}

// Ready in pieces of these sizes, ranks at paces of their own, two steps.
TEST(GradientSync, SumsAreThoseOfTheTreeWithAndWithoutOverlap) {
  for (std::uint32_t ranks : {1u, 2u, 4u}) {
    const std::vector<float> expected = PairwiseSum(Parts(ranks));
    for (const bool scatter : {false, true}) {
      for (const bool overlap : {false, true}) {
        Group group = comm::MakeLocalGroup(ranks, 30s);
        OnAllRanks(group, [&](comm::Communicator& comm) {
          GradientSync sync(comm, Options(scatter, overlap));
          const std::uint32_t rank = comm.rank().value;
          for (int step = 0; step < 2; ++step) {
            std::vector<float> mine = HardValues(rank, kCount);
            const std::size_t stride = 10000 * (rank + 1);
            for (std::size_t from = kCount; from > stride; from -= stride) {
              sync.Ready(mine.data(), from);
            }
            ASSERT_TRUE(sync.Finish(mine.data()).ok());
            const auto pieces = scatter ? ShardOf(comm.rank(), ranks, sync.buckets())
                                        : std::vector<Piece>{{0, kCount}};
            for (const Piece& piece : pieces) {
              EXPECT_EQ(std::memcmp(mine.data() + piece.begin, expected.data() + piece.begin,
                                    piece.count * sizeof(float)),
                        0)
                  << ranks << " ranks, scatter " << scatter << ", overlap " << overlap;
            }
          }
        });
      }
    }
  }
}

TEST(GradientSync, WithOverlapBucketsAreAddedBeforeTheRestIsReady) {
  Group group = comm::MakeLocalGroup(2, 30s);
  auto parts = Parts(2);
  const float last[] = {parts[0].back(), parts[1].back()};
  const float sum = last[0] + last[1];
  std::atomic<int> seen = 0;
  OnAllRanks(group, [&](comm::Communicator& comm) {
    GradientSync sync(comm, Options(false, true));
    std::vector<float>& mine = parts[comm.rank().value];
    // The memory of a bucket that is not ready is the caller's still.
    sync.Ready(mine.data(), 4 * kNormBlock);
    const auto end = SystemClock().Now() + 20s;
    while (seen < 2 && SystemClock().Now() < end) {
      if (comm.recorder()->Newest() && comm.recorder()->Newest()->sequence >= 2) ++seen;
      std::this_thread::yield();
    }
    ASSERT_TRUE(sync.Finish(mine.data()).ok());
    EXPECT_GT(sync.figures().reduce_ms, 0);
    EXPECT_EQ(mine.back(), sum);
  });
  EXPECT_GE(seen, 2);
}

TEST(GradientSync, AnErrorOfABucketIsThatOfTheStep) {
  for (const bool overlap : {false, true}) {
    Group group = comm::MakeLocalGroup(2, 100ms);
    GradientSync sync(*group[0], Options(false, overlap));
    std::vector<float> mine(kCount);
    const Status status = sync.Finish(mine.data());
    EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
    EXPECT_THAT(status.message(), HasSubstr("exchange 'gradient' #1: rank 1 did not answer"));
  }
}

TEST(GradientSync, ASingleRankAddsNothing) {
  const auto comm = comm::MakeSingle();
  GradientSync sync(*comm, Options(true, true));
  std::vector<float> mine = HardValues(0, kCount);
  sync.Ready(mine.data(), 100);
  EXPECT_TRUE(sync.Finish(mine.data()).ok());
  EXPECT_EQ(mine, HardValues(0, kCount));
}

}  // namespace
}  // namespace thresher::learner
