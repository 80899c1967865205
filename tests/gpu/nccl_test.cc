// NCCL itself, as several ranks on one device: threads of this process. From NCCL 2.30 on that is
// allowed on demand (NCCL_MULTI_RANK_GPU_ENABLE).
#include "common/comm/nccl.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "common/comm/cuda_port.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/comm/comm_testing.h"

namespace thresher::comm {
namespace {

using namespace std::chrono_literals;
using namespace testing;
using gpu::testing::OnDevice;

constexpr int kSharesDevices = 23000;
using NcclGroup = std::vector<std::unique_ptr<NcclCommunicator>>;

class NcclOnDevice : public gpu::testing::DeviceTest {
 protected:
  static void SetUpTestSuite() {
    ::setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
    ::setenv("NCCL_NVLS_ENABLE", "0", 0);
  }
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    const auto library = ProcessNccl();
    if (!library.ok()) GTEST_SKIP() << library.status().message();
    if ((*library)->version < kSharesDevices) {
      GTEST_SKIP() << "NCCL " << NcclVersionText((*library)->version)
                   << " does not let ranks share a device; 2.30 does";
    }
  }

  NcclGroup Make(std::uint32_t size, std::chrono::milliseconds deadline) {
    MeetingPlace place(size);
    NcclGroup group(size);
    std::vector<std::jthread> threads;
    for (std::uint32_t rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        NcclOptions options;
        options.rank = LearnerRank(rank);
        options.size = size;
        options.deadline = deadline;
        auto made = NcclCommunicator::Make(
            options,
            []() -> Result<std::unique_ptr<DevicePort>> {
              THRESHER_RETURN_IF_ERROR(gpu::OpenDevice(0).status());
              return MakeCudaPort();
            },
            place.Gather(options.rank));
        EXPECT_TRUE(made.ok()) << made.status().ToString();
        if (made.ok()) group[rank] = std::move(made).value();
      });
    }
    threads.clear();
    return group;
  }
  // Each rank ends its communicator on a thread of its own: ncclCommFinalize waits for the others.
  void End(NcclGroup& group) {
    std::vector<std::jthread> threads;
    for (auto& comm : group) threads.emplace_back([&comm] { comm.reset(); });
  }
};

TEST_F(NcclOnDevice, HostBytesArrive) {
  NcclGroup group = Make(2, 60s);
  if (HasFailure()) return;
  OnAllRanks(group, [](NcclCommunicator& comm) {
    const std::uint32_t rank = comm.rank().value;
    for (std::size_t count : {1u, 1000u, 5000000u}) {
      const std::vector<float> out = HardValues(rank, count);
      std::vector<float> in(count);
      const Status status = comm.Exchange(LearnerRank(rank ^ 1), out, in, "host");
      EXPECT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(SameBits(in, HardValues(rank ^ 1, count)));
    }
    std::vector<std::uint32_t> all(2);
    EXPECT_TRUE(comm.AllGather(std::as_bytes(std::span(&rank, 1)),
                               std::as_writable_bytes(std::span(all)), "ranks")
                    .ok());
    EXPECT_EQ(all, (std::vector<std::uint32_t>{0, 1}));
    EXPECT_TRUE(comm.Barrier("end").ok());
  });
  End(group);
}

TEST_F(NcclOnDevice, TheTreeHasTheBitsOfTheHosts) {
  for (std::uint32_t ranks : {2u, 4u}) {
    NcclGroup group = Make(ranks, 60s);
    if (HasFailure()) return;
    for (std::size_t count : {1u, 7u, 1000003u}) {
      std::vector<std::vector<float>> data;
      for (std::uint32_t r = 0; r < ranks; ++r) data.push_back(HardValues(r, count));
      const std::vector<float> expected = PairwiseSum(data);
      OnAllRanks(group, [&](NcclCommunicator& comm) {
        const OnDevice<float> values(data[comm.rank().value]);
        const OnDevice<float> scratch(std::vector<float>((count + 1) / 2));
        const Status status = comm.TreeAllReduceOnDevice(
            {values.data(), count}, {scratch.data(), (count + 1) / 2}, nullptr, "gradients");
        EXPECT_TRUE(status.ok()) << status.ToString();
        EXPECT_TRUE(SameBits(values.Read(), expected)) << ranks << " ranks, " << count;
      });
    }
    End(group);
  }
}

TEST_F(NcclOnDevice, ParametersAreBroadcastAndGradientsSummedByTheLibrary) {
  NcclGroup group = Make(2, 60s);
  if (HasFailure()) return;
  OnAllRanks(group, [](NcclCommunicator& comm) {
    const std::uint32_t rank = comm.rank().value;
    const OnDevice<float> values(std::vector<float>(1000, static_cast<float>(rank + 1)));
    EXPECT_TRUE(comm.AllReduceOnDevice({values.data(), 1000}, nullptr, "gradients").ok());
    EXPECT_EQ(values.Read(), std::vector<float>(1000, 3.0f));
    const OnDevice<float> weights(HardValues(rank, 1000));
    EXPECT_TRUE(comm.BroadcastOnDevice(LearnerRank(1),
                                       std::as_writable_bytes(std::span(weights.data(), 1000)),
                                       nullptr, "parameters")
                    .ok());
    EXPECT_TRUE(SameBits(weights.Read(), HardValues(1, 1000)));
  });
  End(group);
}

TEST_F(NcclOnDevice, ARankThatDoesNotComeIsNamedAndTheDeviceGoesOn) {
  NcclGroup group = Make(2, 3s);
  if (HasFailure()) return;
  OnAllRanks(group, [](NcclCommunicator& comm) { EXPECT_TRUE(comm.Barrier("first").ok()); });
  const Status status = group[0]->Barrier("second");
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(status.message().find("barrier 'second' #2: rank 1 did not answer within 3000 ms"),
            std::string::npos)
      << status.message();
  End(group);
  EXPECT_TRUE(gpu::MakeDeviceMemory(1000).ok());
}

}  // namespace
}  // namespace thresher::comm
