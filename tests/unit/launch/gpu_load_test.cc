#include "launch/gpu_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thresher::launch {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t kGiB = std::size_t{1} << 30;

RunEstimate EstimateOf(const Config& config) { return Estimate(config, *EnvironmentOf(config)); }

Config ConfigOf(std::vector<std::string> overrides) {
  return ParseConfig("", "test", std::move(overrides));
}

const ProcessEstimate& ProcessOf(const RunEstimate& e, const std::string& name) {
  for (const ProcessEstimate& process : e.processes) {
    if (process.name == name) return process;
  }
  ADD_FAILURE() << name;
  return e.processes.front();
}

backend::Gpus GpusOf(int count, std::size_t bytes, bool tensor_cores) {
  backend::Gpus gpus;
  gpus.architectures = "80, 90a";
  for (int i = 0; i < count; ++i) {
    gpus.list.push_back({i, "NVIDIA Test", tensor_cores ? 9 : 8, 0, bytes, tensor_cores});
  }
  return gpus;
}

std::string RefusalOf(const Config& config, const backend::Gpus& gpus) {
  try {
    RequireGpus(config, EstimateOf(config), gpus);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(GpuEstimateTest, NothingIsOnAGpuThatIsNotAskedFor) {
  const RunEstimate e = EstimateOf(ConfigOf({}));
  for (const ProcessEstimate& process : e.processes) EXPECT_EQ(process.GpuBytes(), 0u);
  EXPECT_TRUE(LoadsOf(ConfigOf({}), e, 2).empty());
}

TEST(GpuEstimateTest, KeysValuesAndActivationsMoveToTheGpu) {
  const RunEstimate cpu = EstimateOf(ConfigOf({}));
  const RunEstimate gpu = EstimateOf(ConfigOf({"actors.device=cuda", "learner.device=cuda"}));
  const auto has = [](const std::vector<ProcessEstimate::Part>& parts, const std::string& what) {
    return std::any_of(parts.begin(), parts.end(), [&](const ProcessEstimate::Part& part) {
      return part.what.starts_with(what);
    });
  };
  EXPECT_TRUE(has(ProcessOf(cpu, "actor").parts, "KV cache"));
  EXPECT_FALSE(has(ProcessOf(gpu, "actor").parts, "KV cache"));
  EXPECT_TRUE(has(ProcessOf(gpu, "actor").gpu_parts, "KV cache"));
  EXPECT_TRUE(has(ProcessOf(cpu, "learner rank").parts, "activations"));
  EXPECT_FALSE(has(ProcessOf(gpu, "learner rank").parts, "activations"));
  EXPECT_TRUE(has(ProcessOf(gpu, "learner rank").gpu_parts, "activations"));
}

TEST(GpuEstimateTest, ACriticHasRoomOfItsOwn) {
  const std::uint64_t vector = EstimateOf(ConfigOf({})).parameters * sizeof(float);
  for (const char* device : {"cpu", "cuda"}) {
    const auto rank = [&](std::vector<std::string> more) {
      more.insert(more.end(), {std::string("learner.device=") + device, "objective.kl=0"});
      const RunEstimate e = EstimateOf(ConfigOf(std::move(more)));
      return std::tuple{ProcessOf(e, "learner rank").TotalBytes(),
                        ProcessOf(e, "learner rank").GpuBytes(), e.disk.checkpoints};
    };
    const auto [none, none_gpu, none_disk] = rank({});
    const auto [shared, shared_gpu, shared_disk] =
        rank({"objective.advantage=gae", "objective.critic=shared"});
    const auto [own, own_gpu, own_disk] = rank({"objective.preset=ppo"});
    EXPECT_GT(shared, none);
    EXPECT_GT(own, shared + 3 * vector);  // masters and moments
    EXPECT_EQ(shared_disk, none_disk);
    EXPECT_GT(own_disk, none_disk);
    const bool gpu = std::string(device) == "cuda";
    EXPECT_EQ(shared_gpu > none_gpu, gpu);
    EXPECT_EQ(own_gpu, shared_gpu);
  }
  // Nothing of it without the phase.
  const auto bytes = [](std::vector<std::string> more) {
    return ProcessOf(EstimateOf(ConfigOf(std::move(more))), "learner rank").TotalBytes();
  };
  EXPECT_EQ(bytes({"rl.steps=0", "objective.preset=ppo"}), bytes({"rl.steps=0"}));
}

TEST(GpuEstimateTest, ParametersAndSumsAreOnTheGpuUnlessOffloaded) {
  const auto rank = [](std::vector<std::string> more) {
    more.push_back("learner.device=cuda");
    return ProcessOf(EstimateOf(ConfigOf(std::move(more))), "learner rank");
  };
  const ProcessEstimate gpu = rank({}), offloaded = rank({"learner.offload_optimizer=true"});
  const std::uint64_t vector = EstimateOf(ConfigOf({})).parameters * sizeof(float);
  // Masters, two moments, and of eight leaves three sums that wait.
  EXPECT_EQ(gpu.GpuBytes(), offloaded.GpuBytes() + 6 * vector);
  EXPECT_EQ(rank({"learner.grad_leaves=1"}).GpuBytes(), offloaded.GpuBytes() + 3 * vector);
  EXPECT_LT(gpu.TotalBytes(), offloaded.TotalBytes());
  // A rank with a part of the leaves has fewer sums; with one, room for the other ranks'.
  const std::string nccl = "learner.communicator=nccl";
  const ProcessEstimate two = rank({"learner.ranks=2", nccl}),
                        eight = rank({"learner.ranks=8", nccl});
  EXPECT_EQ(two.GpuBytes() - eight.GpuBytes(), 2 * vector - vector / 2);
}

TEST(GpuEstimateTest, ActivationsComputedAgainAndAReferenceShow) {
  const std::vector<std::string> base = {"learner.device=cuda", "model.layers=12"};
  const auto bytes = [&](const char* more) {
    std::vector<std::string> overrides = base;
    if (*more != '\0') overrides.push_back(more);
    return ProcessOf(EstimateOf(ConfigOf(overrides)), "learner rank").GpuBytes();
  };
  EXPECT_LT(bytes("learner.recompute_activations=true"), bytes(""));
  EXPECT_GT(bytes("objective.kl=0.1"), bytes(""));
}

TEST(GpuLoadTest, ProcessesTakeTheGpusInTurn) {
  const Config config =
      ConfigOf({"actors.device=cuda:2,cuda:3", "actors.count=3", "learner.device=cuda",
                "learner.ranks=2", "learner.communicator=nccl"});
  const auto loads = LoadsOf(config, EstimateOf(config), 4);
  ASSERT_EQ(loads.size(), 4u);
  const int actors[] = {0, 0, 2, 1}, ranks[] = {1, 1, 0, 0};
  for (int i = 0; i < 4; ++i) {
    const GpuLoad& load = loads[static_cast<std::size_t>(i)];
    EXPECT_EQ(load.index, i);
    EXPECT_EQ(load.actors, actors[i]);
    EXPECT_EQ(load.ranks, ranks[i]);
    EXPECT_LE(load.least, load.most);
  }
  EXPECT_EQ(loads[2].most, 2 * loads[3].most);
  EXPECT_EQ(
      LoadsOf(ConfigOf({"actors.device=cuda"}), EstimateOf(ConfigOf({"actors.device=cuda"})), 1)
          .size(),
      1u);
}

TEST(GpuLoadTest, ProcessesThatTakeTurnsShareOneRoom) {
  const std::vector<std::string> apart = {"actors.device=cuda", "learner.device=cuda"};
  std::vector<std::string> turns = apart;
  turns.push_back("engine.colocated=true");
  const RunEstimate e = EstimateOf(ConfigOf(apart));
  const GpuLoad together = LoadsOf(ConfigOf(apart), e, 1)[0];
  const GpuLoad in_turn = LoadsOf(ConfigOf(turns), e, 1)[0];
  EXPECT_LT(in_turn.most, together.most);
  EXPECT_GE(in_turn.most, ProcessOf(e, "learner rank").GpuBytes() + 2 * kCudaDeviceBytes);
  EXPECT_GE(in_turn.most, 2 * ProcessOf(e, "actor").GpuBytes() + kCudaDeviceBytes);
}

TEST(GpuLoadTest, WhatFitsIsAccepted) {
  EXPECT_EQ(RefusalOf(ConfigOf({"actors.device=cuda", "learner.device=cuda"}),
                      GpusOf(1, 24 * kGiB, false)),
            "");
}

TEST(GpuLoadTest, WhatDoesNotFitIsRefusedWithItsNumbers) {
  const std::string refusal =
      RefusalOf(ConfigOf({"actors.device=cuda", "learner.device=cuda", "model.width=4096",
                          "model.heads=32", "model.kv_heads=8", "model.head_dim=128",
                          "model.ffn_width=14336", "model.layers=32"}),
                GpusOf(1, 24 * kGiB, false));
  EXPECT_THAT(refusal, HasSubstr("cuda:0 (NVIDIA Test, 8.0, 24.0 GiB): 2 actors and 1 learner"));
  EXPECT_THAT(refusal, HasSubstr("need at least"));
}

TEST(GpuLoadTest, AGpuThatIsNotThereIsRefused) {
  EXPECT_THAT(RefusalOf(ConfigOf({"actors.device=cuda:5"}), GpusOf(2, 80 * kGiB, true)),
              HasSubstr("actors.device: value 'cuda:5'; allowed: cuda:0 to cuda:1"));
}

TEST(GpuLoadTest, TheTensorCoreSetNeedsItsGpu) {
  const Config config = ConfigOf({"actors.device=cuda", "learner.device=cuda",
                                  "model.dtype=bfloat16", "engine.kernel_set=cuda-bf16-sm90-v1"});
  EXPECT_THAT(RefusalOf(config, GpusOf(1, 80 * kGiB, false)), HasSubstr("engine.kernel_set"));
  EXPECT_EQ(RefusalOf(config, GpusOf(1, 80 * kGiB, true)), "");
}

}  // namespace
}  // namespace thresher::launch
