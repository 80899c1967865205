// Ranks whose gradients go from device to device, over the NCCL without devices: the communicator's
// port copies what lies on the (simulated) device.
#include <cuda_runtime_api.h>

#include "tests/gpu/learner/optimizer_testing.h"
#include "tests/unit/comm/fake_group.h"

namespace thresher::learner::testing {
namespace {

Status Copy(void* to, const void* from, std::size_t bytes) {
  return gpu::ToStatus(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "copy");
}

// A stream of the host that reaches device memory.
class DeviceMemoryPort final : public comm::HostPort {
 public:
  Status Add(float* sum, const float* other, std::size_t count, bool other_first) override {
    return Enqueue([=] {
      ++additions;
      std::vector<float> own(count), theirs(count);
      ASSERT_TRUE(Copy(own.data(), sum, count * sizeof(float)).ok());
      ASSERT_TRUE(Copy(theirs.data(), other, count * sizeof(float)).ok());
      for (std::size_t i = 0; i < count; ++i) {
        own[i] = other_first ? theirs[i] + own[i] : own[i] + theirs[i];
      }
      ASSERT_TRUE(Copy(sum, own.data(), count * sizeof(float)).ok());
    });
  }
  Status WaitFor(CUstream_st* other) override {
    return gpu::ToStatus(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(other)), "wait");
  }
  static inline std::atomic<int> additions{0};
};

class NcclRanks : public OptimizerSteps {
 protected:
  void SetUp() override {
    OptimizerSteps::SetUp();
    comm::testing::ResetControls();
    comm::testing::Controls().copy = +[](void* to, const void* from, unsigned long bytes) {
      THRESHER_CHECK(Copy(to, from, bytes).ok(), "copy of a message");
    };
  }
  void TearDown() override { comm::testing::Controls().copy = nullptr; }
};

TEST_F(NcclRanks, StepWithTheBitsOfOneRank) {
  if (IsSkipped()) return;
  const auto host = OnHost();
  ASSERT_TRUE(Start(*host).ok());
  const Outcome first = Step(*host, 0, kOfRanks), second = Step(*host, 0, kOfRanks);
  // Of one leaf a rank, and of more: the scratch of the sum lies elsewhere.
  for (std::uint32_t ranks : {2u, 4u}) {
    DeviceMemoryPort::additions = 0;
    auto made = comm::testing::MakeNcclGroup(
        ranks, {.make_port = [] { return std::make_unique<DeviceMemoryPort>(); }});
    options_.leaves = kOfRanks / ranks;
    std::vector<std::jthread> threads;
    for (auto& comm : made) {
      ASSERT_TRUE(comm.ok()) << comm.status().ToString();
      threads.emplace_back([&, owned = std::move(comm).value()] {
        ASSERT_TRUE(owned->reaches_devices());
        WorkerPool workers(WorkerPoolOptions{.threads = 1, .spin = {}});
        const auto device = OnDevice(&workers);
        ASSERT_TRUE(Start(*device).ok());
        const std::size_t begin = owned->rank().value * options_.leaves;
        const std::size_t end = begin + options_.leaves;
        for (const Outcome* expected : {&first, &second}) {
          const Outcome got = Step(*device, *owned, begin, end);
          EXPECT_EQ(got.norm, expected->norm);
          EXPECT_TRUE(got.published == expected->published);
        }
      });
    }
    threads.clear();
    EXPECT_GT(DeviceMemoryPort::additions.load(), 0);
    EXPECT_EQ(comm::testing::Controls().misuses.load(), 0);
  }
}

}  // namespace
}  // namespace thresher::learner::testing
