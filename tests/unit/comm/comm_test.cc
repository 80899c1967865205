#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "common/comm/flight_recorder.h"
#include "tests/unit/comm/fake_group.h"

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;
using namespace testing;
using ::testing::HasSubstr;

// What holds for every backend whose ranks can be threads; tests/integration/comm: for MPI.
class CommunicatorTest : public ::testing::TestWithParam<const char*> {
 protected:
  Group Make(std::uint32_t ranks, std::chrono::milliseconds deadline) {
    return MakeGroup(GetParam(), ranks, deadline);
  }
};
INSTANTIATE_TEST_SUITE_P(Backend, CommunicatorTest, ::testing::Values("local", "nccl"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(CommunicatorTest, BitsOfATreeAllReduceEqualThePairwiseTreeForEveryLength) {
  for (std::uint32_t ranks : {1u, 2u, 4u, 8u}) {
    Group group = Make(ranks, 30s);
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

TEST(TreeAllReduceTest, DeviceMemoryIsRefusedByABackendThatDoesNotReachIt) {
  const auto single = MakeSingle();
  EXPECT_FALSE(single->reaches_devices());
  const Status refused = single->TreeAllReduceOnDevice({}, {}, nullptr, "gradient");
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("local: 'gradient' of device memory"));
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

TEST_P(CommunicatorTest, ATreeOverOtherRankCountsIsRefused) {
  Group group = Make(3, 5s);
  std::vector<float> data(4);
  EXPECT_EQ(TreeAllReduce(*group[0], data, "x").code(), StatusCode::kInvalidArgument);
}

TEST_P(CommunicatorTest, ShardsOfATreeAreDisjointAndTheirSumsThoseOfTheAllReduce) {
  for (std::uint32_t ranks : {1u, 2u, 4u, 8u}) {
    Group group = Make(ranks, 30s);
    for (std::size_t count : {0u, 1u, 5u, 8u, 63u, 64u, 65u, 1000u, 4097u}) {
      for (std::size_t grain : {1u, 3u, 64u, 5000u}) {
        std::vector<std::vector<float>> data;
        for (std::uint32_t r = 0; r < ranks; ++r) data.push_back(HardValues(r, count));
        const std::vector<float> expected = PairwiseSum(data);
        std::vector<int> owners(count, 0);
        for (std::uint32_t r = 0; r < ranks; ++r) {
          const TreeRange shard = TreeShard(LearnerRank(r), ranks, count, grain);
          EXPECT_TRUE(shard.size() == 0 || shard.begin % grain == 0);
          for (std::size_t i = shard.begin; i < shard.end; ++i) ++owners[i];
        }
        EXPECT_THAT(owners, ::testing::Each(1));
        OnAllRanks(group, [&](Communicator& comm) {
          std::vector<float>& mine = data[comm.rank().value];
          EXPECT_TRUE(TreeReduceScatter(comm, mine, grain, "gradients").ok());
          const TreeRange shard = TreeShard(comm.rank(), ranks, count, grain);
          for (std::size_t i = 0; i < count; ++i) {
            if (i < shard.begin || i >= shard.end) mine[i] = -1;  // undefined
          }
          EXPECT_TRUE(TreeAllGather(comm, mine, grain, "weights").ok());
        });
        for (std::uint32_t r = 0; r < ranks; ++r) {
          EXPECT_TRUE(SameBits(data[r], expected))
              << ranks << " ranks, " << count << " values, grain " << grain << ", rank " << r;
        }
      }
    }
  }
}

TEST(TreeTest, HalvesOverOtherRankCountsAreRefused) {
  for (std::uint32_t ranks : {3u, 5u, 6u, 7u, 9u}) {
    Group group = MakeLocalGroup(ranks, 5s);
    std::vector<float> data(4);
    for (const Status& status :
         {TreeReduceScatter(*group[0], data, 1, "x"), TreeAllGather(*group[0], data, 1, "x")}) {
      EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
      EXPECT_THAT(status.message(), HasSubstr("over " + std::to_string(ranks) + " ranks"));
    }
  }
}

TEST_P(CommunicatorTest, OneRankSendsToAnotherAndTheRestCountIt) {
  for (std::uint32_t ranks : {2u, 3u, 5u}) {
    Group group = Make(ranks, 30s);
    OnAllRanks(group, [&](Communicator& comm) {
      for (std::uint32_t from = 1; from < ranks; ++from) {
        const std::uint32_t out = 100 * comm.rank().value + from;
        std::uint32_t in = 0;
        EXPECT_TRUE(comm.Send(LearnerRank(from), LearnerRank(0), std::as_bytes(std::span(&out, 1)),
                              std::as_writable_bytes(std::span(&in, 1)), "s")
                        .ok());
        EXPECT_EQ(in, comm.rank().value == 0 ? 101 * from : 0u);
      }
      EXPECT_TRUE(comm.Barrier("end").ok());
      EXPECT_EQ(comm.recorder()->Newest()->sequence, ranks);
    });
  }
}

TEST_P(CommunicatorTest, CollectivesMoveTheRightBytes) {
  for (std::uint32_t ranks : {1u, 2u, 3u, 5u}) {
    Group group = Make(ranks, 30s);
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

TEST_P(CommunicatorTest, MissedDeadlineNamesPeerOperationAndSequenceForGood) {
  Group group = Make(3, 200ms);
  std::vector<float> buffer(2);
  Status status = group[0]->Exchange(LearnerRank(2), buffer, buffer, "gradients");
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(),
              HasSubstr("rank 0: exchange 'gradients' #1: rank 2 did not answer within 200 ms"));
  // Later calls say the same, at once, whatever they are.
  EXPECT_EQ(group[0]->Barrier("other").message(), status.message());
}

TEST(LocalCommunicatorTest, OthersLearnOfAFailureWithoutWaiting) {
  Group group = MakeLocalGroup(3, 60s);
  std::vector<float> one(1), two(2);
  {
    std::jthread a([&] { (void)group[0]->Exchange(LearnerRank(2), one, two, "gradients").ok(); });
    EXPECT_FALSE(group[2]->Exchange(LearnerRank(0), one, two, "gradients").ok());
  }
  Status other = group[1]->Barrier("step");
  EXPECT_EQ(other.code(), StatusCode::kAborted);
  EXPECT_THAT(other.message(), HasSubstr("exchange 'gradients' #1"));
}

TEST_P(CommunicatorTest, BarrierNamesEveryMissingRank) {
  Group group = Make(4, 200ms);
  EXPECT_THAT(group[1]->Barrier("x").message(), HasSubstr("ranks 0, 2, 3 did not answer"));
}

TEST_P(CommunicatorTest, SizesThatDifferAreToldApart) {
  Group group = Make(2, 30s);
  std::vector<float> one(1), two(2);
  Status first, second;
  {
    std::jthread a([&] { first = group[0]->Exchange(LearnerRank(1), one, two, "gradients"); });
    std::jthread b([&] { second = group[1]->Exchange(LearnerRank(0), one, two, "gradients"); });
  }
  EXPECT_EQ(first.code(), StatusCode::kAborted) << first.ToString();
  EXPECT_EQ(second.code(), StatusCode::kAborted) << second.ToString();
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

TEST_P(CommunicatorTest, RanksInDifferentOperationsAreToldApart) {
  Group group = Make(2, 30s);
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
