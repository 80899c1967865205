#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "common/base/random.h"
#include "common/comm/communicator.h"

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Group = std::vector<std::unique_ptr<Communicator>>;

template <typename Body>
void OnAllRanks(Group& group, Body body) {
  std::vector<std::jthread> threads;
  for (auto& comm : group) threads.emplace_back([&comm, &body] { body(*comm); });
}

// Values whose sum depends on the order: magnitudes from 2^-20 to 2^20, both signs.
std::vector<float> HardValues(std::uint32_t rank, std::size_t count) {
  TrajectoryId id;
  id.sample = rank;
  RandomSequence random(7, id, RandomPurpose::kBootstrap);
  std::vector<float> values(count);
  for (float& v : values) {
    v = std::ldexp(static_cast<float>(random.NextUniform() - 0.5),
                   static_cast<int>(random.Between(-20, 20)));
  }
  return values;
}

// (0+1)+(2+3), ... on one rank.
std::vector<float> PairwiseSum(std::vector<std::vector<float>> parts) {
  for (std::size_t step = 1; step < parts.size(); step *= 2) {
    for (std::size_t i = 0; i < parts.size(); i += 2 * step) {
      for (std::size_t k = 0; k < parts[i].size(); ++k) parts[i][k] += parts[i + step][k];
    }
  }
  return parts[0];
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST(TreeAllReduceTest, BitsEqualThePairwiseTreeForEveryLength) {
  for (std::uint32_t ranks : {1u, 2u, 4u, 8u}) {
    Group group = MakeLocalGroup(ranks, 30s);
    for (std::size_t count : {0u, 1u, 2u, 3u, 7u, 8u, 9u, 64u, 1000u, 4097u}) {
      std::vector<std::vector<float>> data;
      for (std::uint32_t r = 0; r < ranks; ++r) data.push_back(HardValues(r, count));
      std::vector<float> expected = PairwiseSum(data);
      OnAllRanks(group, [&](Communicator& comm) {
        Status status = TreeAllReduce(comm, data[comm.rank().value], "gradients");
        EXPECT_TRUE(status.ok()) << status.ToString();
      });
      for (std::uint32_t r = 0; r < ranks; ++r) {
        EXPECT_TRUE(SameBits(data[r], expected))
            << ranks << " ranks, " << count << " values, rank " << r;
      }
    }
  }
}

TEST(TreeAllReduceTest, TheOrderOfTheseValuesMatters) {
  // Guards the test above: a sum from left to right gives other bits.
  std::vector<std::vector<float>> data;
  for (std::uint32_t r = 0; r < 8; ++r) data.push_back(HardValues(r, 1000));
  std::vector<float> serial = data[0];
  for (std::uint32_t r = 1; r < 8; ++r) {
    for (std::size_t k = 0; k < serial.size(); ++k) serial[k] += data[r][k];
  }
  EXPECT_FALSE(SameBits(serial, PairwiseSum(data)));
}

TEST(TreeAllReduceTest, OtherRankCountsAreRefused) {
  Group group = MakeLocalGroup(3, 1s);
  std::vector<float> data(4);
  EXPECT_EQ(TreeAllReduce(*group[0], data, "x").code(), StatusCode::kInvalidArgument);
}

TEST(LocalCommunicatorTest, CollectivesMoveTheRightBytes) {
  for (std::uint32_t ranks : {1u, 2u, 3u, 5u}) {
    Group group = MakeLocalGroup(ranks, 30s);
    std::atomic<std::uint32_t> entered = 0;
    OnAllRanks(group, [&](Communicator& comm) {
      EXPECT_EQ(comm.size(), ranks);
      std::uint32_t rank = comm.rank().value;
      std::uint32_t value = rank == ranks - 1 ? 42 : 0;
      EXPECT_TRUE(
          comm.Broadcast(LearnerRank(ranks - 1), std::as_writable_bytes(std::span(&value, 1)), "b")
              .ok());
      EXPECT_EQ(value, 42u);
      std::vector<std::uint32_t> all(ranks);
      std::uint32_t mine = 10 + rank;
      EXPECT_TRUE(comm.AllGather(std::as_bytes(std::span(&mine, 1)),
                                 std::as_writable_bytes(std::span(all)), "g")
                      .ok());
      for (std::uint32_t r = 0; r < ranks; ++r) EXPECT_EQ(all[r], 10 + r);
      ++entered;
      EXPECT_TRUE(comm.Barrier("all in").ok());
      EXPECT_EQ(entered, ranks);
    });
  }
}

TEST(LocalCommunicatorTest, MissedDeadlineNamesPeerOperationAndSequenceForGood) {
  Group group = MakeLocalGroup(3, 20ms);
  std::vector<float> buffer(2);
  Status status = group[0]->Exchange(LearnerRank(2), buffer, buffer, "gradients");
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(),
              HasSubstr("rank 0: exchange 'gradients' #1: rank 2 did not answer within 20 ms"));
  // Later calls say the same, at once, whatever they are.
  EXPECT_EQ(group[0]->Barrier("other").message(), status.message());
  // And the other ranks learn of it without waiting for their own deadline.
  Status other = group[1]->Barrier("step");
  EXPECT_EQ(other.code(), StatusCode::kAborted);
  EXPECT_THAT(other.message(), HasSubstr("exchange 'gradients' #1"));
}

TEST(LocalCommunicatorTest, BarrierNamesEveryMissingRank) {
  Group group = MakeLocalGroup(4, 20ms);
  EXPECT_THAT(group[1]->Barrier("x").message(), HasSubstr("ranks 0, 2, 3 did not answer"));
}

TEST(LocalCommunicatorTest, LostPeerEndsTheWaitBeforeTheDeadline) {
  Group group = MakeLocalGroup(2, 60s);
  Status status;
  {
    std::jthread waiting([&] { status = group[0]->Barrier("step"); });
    group[1].reset();
  }
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("barrier 'step' #1: rank 1 is gone"));
}

TEST(LocalCommunicatorTest, RanksInDifferentOperationsAreToldApart) {
  Group group = MakeLocalGroup(2, 30s);
  std::vector<float> buffer(2);
  Status first, second;
  {
    std::jthread a([&] { first = group[0]->Exchange(LearnerRank(1), buffer, {}, "gradients"); });
    std::jthread b([&] { second = group[1]->Barrier("end"); });
  }
  EXPECT_EQ(first.code(), StatusCode::kAborted);
  EXPECT_EQ(second.code(), StatusCode::kAborted);
  EXPECT_THAT(first.message() + second.message(), HasSubstr("barrier 'end'"));
  EXPECT_THAT(first.message() + second.message(), HasSubstr("exchange 'gradients'"));
}

TEST(LocalCommunicatorTest, TheSingleRankNeverWaits) {
  auto comm = MakeSingle();
  EXPECT_EQ(comm->size(), 1u);
  EXPECT_STREQ(comm->backend(), "local");
  std::vector<float> data = {1, 2, 3};
  EXPECT_TRUE(TreeAllReduce(*comm, data, "x").ok());
  EXPECT_EQ(data, (std::vector<float>{1, 2, 3}));
  EXPECT_TRUE(comm->Barrier("x").ok());
}

TEST(LocalCommunicatorDeathTest, ExchangeWithItselfIsABug) {
  auto comm = MakeSingle();
  EXPECT_DEATH((void)comm->Exchange(LearnerRank(0), {}, {}, "x").ok(), "check failed");
}

}  // namespace
}  // namespace thresher::comm
