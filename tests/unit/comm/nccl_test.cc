// NcclCommunicator over an NCCL without devices (tests/support/fake_nccl.cc): what comm_test.cc
// does not ask of every backend.
#include "common/comm/nccl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/unit/comm/fake_group.h"

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;
using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

class NcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ResetControls();
    alive_ = Controls().communicators;
  }
  // Every communicator is ended in one way or the other, and no rule of NCCL was broken.
  void TearDown() override {
    EXPECT_EQ(Controls().communicators, alive_);
    EXPECT_EQ(Controls().misuses, 0);
    ResetControls();
  }

 private:
  int alive_ = 0;
};

std::vector<std::vector<float>> HardVectors(std::uint32_t ranks, std::size_t count) {
  std::vector<std::vector<float>> data;
  for (std::uint32_t r = 0; r < ranks; ++r) data.push_back(HardValues(r, count));
  return data;
}

TEST_F(NcclTest, ADeviceTreeHasTheBitsOfThePairwiseTreeForEveryLength) {
  for (std::uint32_t ranks : {1u, 2u, 4u, 8u}) {
    auto group = NcclGroup(ranks);
    for (std::size_t count : {0u, 1u, 2u, 3u, 7u, 64u, 1000u}) {
      auto data = HardVectors(ranks, count);
      const std::vector<float> expected = PairwiseSum(data);
      OnAllRanks(group, [&](NcclCommunicator& comm) {
        std::vector<float> scratch((count + 1) / 2);
        const Status status =
            comm.TreeAllReduceOnDevice(data[comm.rank().value], scratch, nullptr, "gradients");
        EXPECT_TRUE(status.ok()) << status.ToString();
      });
      for (const auto& sum : data) EXPECT_TRUE(SameBits(sum, expected)) << ranks << " " << count;
    }
  }
}

TEST_F(NcclTest, ADeviceTreeRefusesOtherRankCountsAndTooLittleScratch) {
  auto three = NcclGroup(3);
  std::vector<float> data(5), scratch(2);
  EXPECT_EQ(three[0]->TreeAllReduceOnDevice(data, scratch, nullptr, "x").code(),
            StatusCode::kInvalidArgument);
  auto two = NcclGroup(2);
  EXPECT_THAT(two[0]->TreeAllReduceOnDevice(data, scratch, nullptr, "x").message(),
              HasSubstr("of 5 values with scratch for 2"));
}

TEST_F(NcclTest, DeviceMemoryIsExchangedBroadcastAndSummed) {
  auto group = NcclGroup(4);
  OnAllRanks(group, [&](NcclCommunicator& comm) {
    const std::uint32_t rank = comm.rank().value;
    std::vector<float> out(3, static_cast<float>(rank)), in(3);
    const LearnerRank peer(rank ^ 1);
    ASSERT_TRUE(comm.ExchangeOnDevice(peer, out, in, nullptr, "pairs").ok());
    EXPECT_EQ(in, std::vector<float>(3, static_cast<float>(peer.value)));
    std::vector<float> weights(1000, rank == 2 ? 7.0f : 0.0f);
    ASSERT_TRUE(comm.BroadcastOnDevice(LearnerRank(2), std::as_writable_bytes(std::span(weights)),
                                       nullptr, "parameters")
                    .ok());
    EXPECT_EQ(weights, std::vector<float>(1000, 7.0f));
    std::vector<float> sum(5, static_cast<float>(rank));
    ASSERT_TRUE(comm.AllReduceOnDevice(sum, nullptr, "gradients").ok());
    EXPECT_EQ(sum, std::vector<float>(5, 6.0f));
  });
}

std::vector<float> CountedValues(std::uint32_t rank, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 9973 * 8 + rank);
  return values;
}

// Several rounds through the staging, which is grown on the way, with lengths of all kinds.
TEST_F(NcclTest, LongHostMessagesPassThroughTheStagingInRounds) {
  auto group = NcclGroup(2);
  OnAllRanks(group, [&](NcclCommunicator& comm) {
    const LearnerRank peer(comm.rank().value ^ 1);
    for (std::size_t count : {1u, 5000u, (16u << 20) / 4 + 1, 3u, (40u << 20) / 4 + 7}) {
      const std::vector<float> out = CountedValues(comm.rank().value, count);
      std::vector<float> in(count);
      const Status status = comm.Exchange(peer, out, in, "long");
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(SameBits(in, CountedValues(peer.value, count))) << count;
    }
  });
}

TEST_F(NcclTest, ASlowLibraryAndDeviceAreWaitedFor) {
  Controls().in_progress = 2020;  // beyond the spinning
  Controls().delay_ms = 2;
  auto group = NcclGroup(4);
  auto data = HardVectors(4, 100);
  const std::vector<float> expected = PairwiseSum(data);
  OnAllRanks(group, [&](NcclCommunicator& comm) {
    EXPECT_TRUE(TreeAllReduce(comm, data[comm.rank().value], "gradients").ok());
  });
  for (const auto& sum : data) EXPECT_TRUE(SameBits(sum, expected));
}

TEST_F(NcclTest, AMissedDeadlineNamesOnlyTheSilentRankAndAborts) {
  auto group = NcclGroup(4, {.deadline = 300ms});
  Controls().deaf_rank = 2;
  std::vector<Status> status(4);
  OnAllRanks(group, [&](Communicator& comm) { status[comm.rank().value] = comm.Barrier("step"); });
  EXPECT_EQ(status[0].code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status[0].message(),
              HasSubstr("rank 0: barrier 'step' #1: rank 2 did not answer within 300 ms"));
  EXPECT_THAT(status[3].message(), HasSubstr("rank 2 did not answer within 300 ms"));
  EXPECT_EQ(Controls().aborts, 4);
  // For good, and at once.
  Controls().deaf_rank = -1;
  EXPECT_EQ(group[0]->Barrier("again").message(), status[0].message());
}

TEST_F(NcclTest, AnErrorOfTheLibraryIsReportedWithItsTextAndAborts) {
  auto group = NcclGroup(2, {.deadline = 300ms});
  Controls().failing_rank = 0;
  const Status status = group[0]->Barrier("step");
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("rank 0: barrier 'step' #1: NCCL: unhandled system"));
  EXPECT_EQ(Controls().aborts, 1);
}

TEST_F(NcclTest, AnAbortOfAnotherRankEndsTheWaitBeforeTheDeadline) {
  Controls().remote_errors = true;
  auto group = NcclGroup(3, {.deadline = 60s});
  Status status;
  {
    std::jthread waiting([&] { status = group[0]->Barrier("step"); });
    Controls().failing_rank = 1;
    EXPECT_FALSE(group[1]->Barrier("step").ok());
  }
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("remote process exited"));
}

TEST_F(NcclTest, ALostDeviceEndsTheOperation) {
  std::vector<HostPort*> ports;
  auto group = NcclGroup(2, {.deadline = 60s, .ports = &ports});
  ports[0]->Lose(Aborted("cudaEventQuery: unspecified launch failure"));
  const Status status = group[0]->Barrier("step");
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("barrier 'step' #1: cudaEventQuery"));
  EXPECT_EQ(Controls().aborts, 1);
}

TEST_F(NcclTest, TheRingTellsWhichPeersWereMet) {
  auto group = NcclGroup(2, {.deadline = 200ms});
  OnAllRanks(group, [](Communicator& comm) { EXPECT_TRUE(comm.Barrier("first").ok()); });
  EXPECT_FALSE(group[0]->Barrier("second").ok());
  const auto entries = group[0]->recorder()->Copy().entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].state, OperationRing::State::kDone);
  EXPECT_NE(entries[0].started, TimePoint{});
  EXPECT_EQ(entries[1].state, OperationRing::State::kFailed);
  EXPECT_EQ(entries[1].started, TimePoint{});  // rank 1 never came
}

TEST_F(NcclTest, AFinalizeThatHangsIsAborted) {
  auto group = NcclGroup(2, {.end_patience = 50ms});
  Controls().finalize_hangs = true;
  group.clear();
  EXPECT_EQ(Controls().aborts, 2);
}

TEST_F(NcclTest, AnAbortThatComesBackLateIsWaitedForAtTheEnd) {
  auto group = NcclGroup(2, {.deadline = 50ms, .end_patience = 100ms});
  Controls().abort_hangs = true;
  const Status status = group[0]->Barrier("step");
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);  // the hanging abort did not hold it
  Controls().abort_hangs = false;
  group.clear();
}

TEST(NcclDeathTest, AnAbortThatNeverComesBackEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ResetControls();
        auto group = NcclGroup(2, {.deadline = 50ms, .end_patience = 100ms});
        Controls().abort_hangs = true;
        (void)group[0]->Barrier("step").ok();
        group.clear();
      },
      ::testing::ExitedWithCode(3), "ncclCommAbort does not return; the process ends");
}

TEST_F(NcclTest, ARankThatCannotTakePartTellsTheOthers) {
  MeetingPlace place(2);
  Status broken, whole;
  const auto make = [&](std::uint32_t rank, Status device) {
    NcclOptions options;
    options.rank = LearnerRank(rank);
    options.size = 2;
    options.library = FakeNccl;
    return NcclCommunicator::Make(
               options,
               [&]() -> Result<std::unique_ptr<DevicePort>> {
                 if (!device.ok()) return device;
                 return std::unique_ptr<DevicePort>(std::make_unique<HostPort>());
               },
               place.Gather(options.rank))
        .status();
  };
  {
    std::jthread a([&] { broken = make(1, FailedPrecondition("GPU: no NVIDIA driver answers")); });
    std::jthread b([&] { whole = make(0, Status::Ok()); });
  }
  EXPECT_EQ(broken.message(), "GPU: no NVIDIA driver answers");
  EXPECT_EQ(whole.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(whole.message(), "rank 1: GPU: no NVIDIA driver answers");
}

TEST_F(NcclTest, ARankThatSaidHelloAndDidNotComeIsGivenUp) {
  NcclOptions options;
  options.size = 2;
  options.deadline = 100ms;
  options.library = FakeNccl;
  NcclHello other;
  other.rank = LearnerRank(1);
  other.size = 2;
  other.version = 23203;
  const auto made = NcclCommunicator::Make(
      options,
      []() -> Result<std::unique_ptr<DevicePort>> {
        return std::unique_ptr<DevicePort>(std::make_unique<HostPort>());
      },
      [&](const std::string& mine) -> Result<std::vector<std::string>> {
        return std::vector<std::string>{mine, EncodeHello(other)};
      });
  EXPECT_EQ(made.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(made.status().message(), HasSubstr("rank 0: meeting 2 ranks: not all came"));
  EXPECT_EQ(Controls().aborts, 1);
}

TEST_F(NcclTest, ABlockingLibraryIsRefused) {
  ::setenv("NCCL_COMM_BLOCKING", "1", 1);
  const Made made = MakeNcclGroup(1, {});
  ::unsetenv("NCCL_COMM_BLOCKING");
  EXPECT_THAT(made[0].status().message(), HasSubstr("unset it"));
}

TEST_F(NcclTest, RanksMeetOverAnotherCommunicator) {
  auto local = MakeLocalGroup(3, 30s);
  std::vector<Status> status(3);
  OnAllRanks(local, [&](Communicator& comm) {
    NcclOptions options;
    options.rank = comm.rank();
    options.size = comm.size();
    options.library = FakeNccl;
    auto made = NcclCommunicator::Make(
        options,
        []() -> Result<std::unique_ptr<DevicePort>> {
          return std::unique_ptr<DevicePort>(std::make_unique<HostPort>());
        },
        GatherOver(comm));
    status[comm.rank().value] = made.ok() ? (*made)->Barrier("met") : made.status();
  });
  for (const Status& s : status) EXPECT_TRUE(s.ok()) << s.ToString();
}

}  // namespace
}  // namespace thresher::comm
