// Steps on a device end with the bits of steps on the CPU.
#include <gmock/gmock.h>

#include "tests/gpu/learner/optimizer_testing.h"
#ifdef THRESHER_CUDA_SIM
#include "tests/support/cuda_sim/cuda_sim.h"
#endif

namespace thresher::learner::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(OptimizerSteps, HaveTheSameBitsWhereverTheyAreComputed) {
  for (kernels::WeightType type : {kernels::WeightType::kF32, kernels::WeightType::kBf16}) {
    SCOPED_TRACE(kernels::WeightTypeName(type));
    model::ModelConfig config = model::SmallConfig(
        type == kernels::WeightType::kF32 ? "qwen3" : "qwen2", type == kernels::WeightType::kF32);
    config.dtype = type;
    Use(config);
    const auto host = OnHost(), offloaded = Offloaded(), device = OnDevice();
    for (Optimizer* each : {host.get(), offloaded.get(), device.get()}) {
      ASSERT_TRUE(Start(*each).ok());
    }
    // 1, 2 and more leaves; the same optimiser takes another number.
    const std::pair<std::size_t, std::size_t> parts[] = {{0, 1}, {2, 4}, {1, 5}, {0, 8}};
    std::string before;
    for (const auto& [begin, end] : parts) {
      const Outcome expected = Step(*host, begin, end);
      EXPECT_NE(expected.published, before);
      before = expected.published;
      EXPECT_TRUE(Step(*offloaded, begin, end) == expected) << begin << " to " << end;
      EXPECT_TRUE(Step(*device, begin, end) == expected) << begin << " to " << end;
    }
    ExpectSameState(*device, *host);
    ASSERT_TRUE(host->ResetMoments().ok() && device->ResetMoments().ok());
    EXPECT_TRUE(Step(*device, 0, 2) == Step(*host, 0, 2));
    ExpectSameState(*device, *host);
  }
}

TEST_F(OptimizerSteps, AGradientThatIsNotFiniteIsSeenAndLeavesNothingBehind) {
  const auto host = OnHost(), device = OnDevice();
  ASSERT_TRUE(Start(*host).ok() && Start(*device).ok());
  for (float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    const float good = std::exchange(leaves_[1].sequences[0].advantage, bad);
    const std::string before = Published(*host);
    const Outcome on_host = Step(*host, 0, 2), on_device = Step(*device, 0, 2);
    EXPECT_FALSE(std::isfinite(on_host.norm));
    EXPECT_FALSE(std::isfinite(on_device.norm));
    EXPECT_EQ(on_host.published, before);
    EXPECT_EQ(on_device.published, before);
    leaves_[1].sequences[0].advantage = good;
    EXPECT_TRUE(Step(*device, 0, 2) == Step(*host, 0, 2));
  }
  ExpectSameState(*device, *host);
}

TEST_F(OptimizerSteps, GoOnFromACheckpointOfTheOtherKind) {
  const auto host = OnHost(), device = OnDevice();
  ASSERT_TRUE(Start(*host).ok() && Start(*device).ok());
  for (Optimizer* each : {host.get(), device.get()}) (void)Step(*each, 0, 2);
  const auto from_device = OnHost(), from_host = OnDevice();
  TrainState written = StateOf(*device);
  ASSERT_TRUE(from_device->Restore(written.weights, written.optimizer).ok());
  written = StateOf(*host);
  ASSERT_TRUE(from_host->Restore(written.weights, written.optimizer).ok());
  const Outcome expected = Step(*host, 4, 6);
  EXPECT_TRUE(Step(*from_device, 4, 6) == expected);
  EXPECT_TRUE(Step(*from_host, 4, 6) == expected);
  ExpectSameState(*from_host, *host);
  // Lent in between, what goes on is the same.
  EXPECT_TRUE(Step(*device, 4, 6) == expected);
}

TEST_F(OptimizerSteps, TakeTurnsWithOthersOnTheDevice) {
  const auto host = OnHost();
  options_.shared = true;
  const auto device = OnDevice();
  ASSERT_TRUE(Start(*host).ok());
#ifdef THRESHER_CUDA_SIM
  const std::size_t vector = weights_.size() * sizeof(float), before = cuda_sim::UsedBytes();
#endif
  ASSERT_TRUE(Start(*device).ok());
  for (int step = 0; step < 2; ++step) {
    EXPECT_TRUE(Step(*device, 0, 2) == Step(*host, 0, 2));
    EXPECT_TRUE(*device->ReleaseDevice());
    ExpectSameState(*device, *host);
    ASSERT_TRUE(host->ResetMoments().ok() && device->ResetMoments().ok());
#ifdef THRESHER_CUDA_SIM
    EXPECT_LT(cuda_sim::UsedBytes(), before + vector);  // columns of rows
#endif
  }
}

TEST_F(OptimizerSteps, AStepsGradientStaysOnTheDevice) {
  options_.shared = true;
  const auto host = OnHost(), device = OnDevice();
  ASSERT_TRUE(Start(*host).ok() && Start(*device).ok());
  LeafOptions options;
  options.micro_batch_tokens = 14;
  LeafStats stats;
  ASSERT_TRUE(device->Compute(reference_, std::span(leaves_).first(2), spec_, options, stats).ok());
  EXPECT_FALSE(*device->ReleaseDevice());
  ASSERT_TRUE(device->Skip().ok());
  EXPECT_TRUE(*device->ReleaseDevice());
  EXPECT_TRUE(*device->ReleaseDevice());
  ExpectSameState(*device, *host);
  EXPECT_TRUE(Step(*device, 0, 2) == Step(*host, 0, 2));
}

#ifdef THRESHER_CUDA_SIM
TEST_F(OptimizerSteps, WhatDoesNotFitIsRefusedBeforeTheFirstStepWithTheRemedy) {
  options_.leaves = 4;
  const std::size_t vector = weights_.size() * sizeof(float);
  const auto device = OnDevice();
  // The moments do not fit; they do, and the sums do not.
  for (std::size_t vectors : {2, 5}) {
    cuda_sim::LimitMemory(cuda_sim::UsedBytes() + vectors * vector);
    const Status status = Start(*device);
    cuda_sim::LimitMemory(0);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
    EXPECT_THAT(status.message(), HasSubstr("learner.device: weights, moments and gradients do "
                                            "not fit the GPU"));
    EXPECT_THAT(status.message(), HasSubstr("learner.offload_optimizer: true"));
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
  EXPECT_TRUE(Start(*device).ok());
}
#endif

TEST_F(OptimizerSteps, OfRanksAreThoseOfOneRank) {
  const auto host = OnHost();
  ASSERT_TRUE(Start(*host).ok());
  const Outcome expected = Step(*host, 0, kOfRanks);
  for (std::uint32_t ranks : {2u, 4u}) {
    auto group = comm::MakeLocalGroup(ranks, std::chrono::seconds(60));
    options_.leaves = kOfRanks / ranks;
    std::vector<std::jthread> threads;
    for (auto& comm : group) {
      threads.emplace_back([&, rank = comm->rank().value] {
        ASSERT_TRUE(gpu::OpenDevice(0).ok());
        WorkerPool workers(WorkerPoolOptions{.threads = 1, .spin = {}});
        const auto device = OnDevice(&workers);
        ASSERT_TRUE(Start(*device).ok());
        const std::size_t begin = rank * options_.leaves;
        const Outcome got = Step(*device, *comm, begin, begin + options_.leaves);
        EXPECT_EQ(got.norm, expected.norm) << rank << " of " << ranks;
        EXPECT_TRUE(got.published == expected.published) << rank << " of " << ranks;
      });
    }
  }
}

}  // namespace
}  // namespace thresher::learner::testing
