#include "common/model/device_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>

#include "common/model/packed_model.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

constexpr DeviceKernelSet kSets[] = {DeviceKernelSet::kFp32, DeviceKernelSet::kBf16};

// Qwen2.5-0.5B's shape.
ModelConfig HalfBillion() {
  ModelConfig config = SmallConfig("qwen2", true);
  config.dtype = kernels::WeightType::kBf16;
  config.vocab = 151936;
  config.layers = 24;
  config.width = 896;
  config.heads = 14;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.ffn_width = 4864;
  config.context = 32768;
  return config;
}

DevicePlanOptions Options(DeviceKernelSet set, std::int32_t pages = 0) {
  return {set, /*slots=*/64, /*max_rows=*/64 + 512, pages};
}

// The least memory with which a plan succeeds.
std::size_t LeastFor(const ModelConfig& config, const DevicePlanOptions& options) {
  std::size_t low = 0, high = std::size_t{1} << 40;
  while (low + 1 < high) {
    const std::size_t middle = low + (high - low) / 2;
    (PlanDevice(config, options, middle).ok() ? high : low) = middle;
  }
  return high;
}

TEST(DevicePlan, IsWithinWhatIsFreeAndHoldsAtLeastOneSequence) {
  for (const ModelConfig& config : {SmallConfig("llama", true), HalfBillion()}) {
    for (DeviceKernelSet set : kSets) {
      const std::size_t least = LeastFor(config, Options(set));
      for (std::size_t free : {least, least + 1, least + least / 7, 2 * least, 5 * least}) {
        const auto plan = PlanDevice(config, Options(set), free);
        ASSERT_TRUE(plan.ok()) << plan.status().ToString();
        EXPECT_LE(plan->total(), free);
        EXPECT_GE(plan->pages, (config.context + 15) / 16);
        EXPECT_LE(plan->pages, 64 * ((config.context + 15) / 16));
        EXPECT_EQ(plan->kv, static_cast<std::size_t>(plan->pages) * KvPageBytes(config, set));
        EXPECT_TRUE(plan->second_weights == 0 || plan->second_weights == plan->weights);
      }
      EXPECT_FALSE(PlanDevice(config, Options(set), least - 1).ok());
    }
  }
}

TEST(DevicePlan, UsesWhatIsFreeUpToWhatAllSequencesNeed) {
  const ModelConfig config = HalfBillion();
  const auto set = DeviceKernelSet::kBf16;
  const std::size_t page = KvPageBytes(config, set);
  const auto some = PlanDevice(config, Options(set), std::size_t{16} << 30);
  ASSERT_TRUE(some.ok());
  EXPECT_LT((std::size_t{16} << 30) - some->total(), page);
  const auto all = PlanDevice(config, Options(set), std::size_t{1} << 40);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->pages, 64 * 2048);
}

TEST(DevicePlan, GivesUpTheRoomForASecondVersionOnlyWhereThereIsNone) {
  const ModelConfig config = HalfBillion();
  for (DeviceKernelSet set : kSets) {
    DevicePlanOptions options = Options(set, 2048);
    options.graphs = false;
    const std::size_t least = LeastFor(config, options);
    const auto tight = PlanDevice(config, options, least);
    ASSERT_TRUE(tight.ok());
    EXPECT_EQ(tight->second_weights, 0u);
    EXPECT_EQ(tight->total(), least);
    EXPECT_EQ(PlanDevice(config, options, least + tight->weights - 1)->second_weights, 0u);
    const auto wide = PlanDevice(config, options, least + tight->weights);
    ASSERT_TRUE(wide.ok());
    EXPECT_EQ(wide->second_weights, wide->weights);
    EXPECT_EQ(wide->pages, 2048);
  }
}

TEST(DevicePlan, GivesUpASecondVersionBeforeRecordingsAndThoseBeforePages) {
  const ModelConfig config = HalfBillion();
  for (DeviceKernelSet set : kSets) {
    const auto options = Options(set, 2048);
    const std::size_t one = RecordingBytes(config, options.slots, 1);
    const std::size_t two = RecordingBytes(config, options.slots, 2);
    EXPECT_EQ(two, 2 * one);
    const std::size_t least = LeastFor(config, options);
    EXPECT_EQ(PlanDevice(config, options, least + one - 1)->graphs, 0u);
    const auto some = PlanDevice(config, options, least + one);
    EXPECT_EQ(some->graphs, one);
    EXPECT_EQ(some->second_weights, 0u);
    EXPECT_EQ(some->total(), least + one);
    EXPECT_EQ(PlanDevice(config, options, least + some->weights + two - 1)->second_weights, 0u);
    const auto all = PlanDevice(config, options, least + some->weights + two);
    EXPECT_EQ(all->graphs, two);
    EXPECT_EQ(all->second_weights, all->weights);
  }
}

TEST(DevicePlan, CountsARecordingForEverySizeOfAStep) {
  const ModelConfig config = HalfBillion();  // 24 layers of 21 kernels, and 12
  EXPECT_EQ(DecodeStepKernels(config), 24 * 21 + 12);
  const GraphBuckets buckets(64, config.context);
  EXPECT_EQ(RecordingBytes(config, 64, 1),
            buckets.rows().size() * buckets.positions().size() * (24 * 21 + 12) * (12 << 10));
  EXPECT_LT(RecordingBytes(config, 64, 2), std::size_t{2} << 30);
  DevicePlanOptions unrecorded = Options(DeviceKernelSet::kFp32);
  unrecorded.graphs = false;
  EXPECT_EQ(PlanDevice(config, unrecorded, std::size_t{1} << 40)->graphs, 0u);
}

TEST(DevicePlan, TakesThePagesItIsToldAndNoOthers) {
  const ModelConfig config = SmallConfig("llama", true);
  for (std::int32_t pages : {1, 7, 100000}) {
    const auto plan =
        PlanDevice(config, Options(DeviceKernelSet::kFp32, pages), std::size_t{1} << 40);
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->pages, pages);
  }
}

TEST(DevicePlan, WhatDoesNotFitIsSaidInNumbers) {
  const ModelConfig config = HalfBillion();
  const auto plan = PlanDevice(config, Options(DeviceKernelSet::kBf16), std::size_t{900} << 20);
  ASSERT_EQ(plan.status().code(), StatusCode::kResourceExhausted);
  const std::string message = plan.status().message();
  const auto mib = [](std::size_t bytes) { return std::to_string((bytes >> 20) + 1) + " MiB"; };
  for (const std::string& part :
       {"weights " + mib(DeviceWeightBytes(config, DeviceKernelSet::kBf16, false)),
        "workspace " + mib(StepWorkspaceBytes(config, Options(DeviceKernelSet::kBf16))),
        "2048 pages " + mib(2048 * KvPageBytes(config, DeviceKernelSet::kBf16)),
        std::string("free: 901 MiB")}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " in " << message;
  }
}

TEST(DevicePlan, CountsBytesAsTheyAreDefined) {
  const ModelConfig config = HalfBillion();
  // 24 layers, keys and values, 2 heads of 64, 16 positions.
  EXPECT_EQ(KvPageBytes(config, DeviceKernelSet::kFp32), 24u * 2 * 2 * 64 * 16 * 4);
  EXPECT_EQ(KvPageBytes(config, DeviceKernelSet::kBf16), 24u * 2 * 2 * 64 * 16 * 2);
  // Both sets hold bf16 matrices; the transposes double them in one.
  const double bytes = 2.0 * static_cast<double>(ParameterCount(config));
  for (DeviceKernelSet set : kSets) {
    const auto weights = static_cast<double>(DeviceMatrixBytes(config, set, false));
    EXPECT_GE(weights, bytes);
    EXPECT_LE(weights, 1.02 * bytes);
  }
  EXPECT_EQ(DeviceMatrixBytes(config, DeviceKernelSet::kBf16, true),
            DeviceMatrixBytes(config, DeviceKernelSet::kBf16, false));
  EXPECT_GT(DeviceMatrixBytes(config, DeviceKernelSet::kFp32, true),
            1.5 * static_cast<double>(DeviceMatrixBytes(config, DeviceKernelSet::kFp32, false)));
}

TEST(DevicePlan, ALargerStepTakesMoreWorkspace) {
  const ModelConfig config = HalfBillion();
  for (DeviceKernelSet set : kSets) {
    const std::size_t least = StepWorkspaceBytes(config, {set, 1, 1});
    EXPECT_GT(StepWorkspaceBytes(config, {set, 1, 512}), least);
    EXPECT_GT(StepWorkspaceBytes(config, {set, 64, 64}), StepWorkspaceBytes(config, {set, 1, 64}));
  }
  // All logits of 256 rows: beyond what 32 bits count.
  EXPECT_GT(StepWorkspaceBytes(config, {DeviceKernelSet::kBf16, 16384, 16384}),
            std::size_t{16384} * 151936 * 4);
  EXPECT_LE(SplitScratchBytes(config, 1 << 20), std::size_t{256} << 20);
}

TEST(DeviceKernelSets, HaveNames) {
  for (DeviceKernelSet set : kSets) EXPECT_EQ(DeviceKernelSetOf(DeviceKernelSetName(set)), set);
  for (const char* other : {"", "cpu-bf16-v1", "cuda-bf16-sm90", "CPU-FP32-V1"}) {
    EXPECT_EQ(DeviceKernelSetOf(other), std::nullopt) << other;
  }
}

TEST(GraphBuckets, EveryStepFindsTheSmallestThatHoldsIt) {
  for (std::int32_t slots : {1, 2, 3, 5, 16, 63, 64, 65, 81, 128, 200, 257, 1000}) {
    for (std::int32_t context : {1, 16, 1023, 1024, 1025, 4096, 5000, 131072}) {
      const GraphBuckets buckets(slots, context);
      const auto& rows = buckets.rows();
      const auto& positions = buckets.positions();
      ASSERT_EQ(rows.back(), slots);
      ASSERT_EQ(positions.back(), context);
      ASSERT_TRUE(std::is_sorted(rows.begin(), rows.end(), std::less_equal<>()));
      ASSERT_TRUE(std::is_sorted(positions.begin(), positions.end(), std::less_equal<>()));
      for (std::int32_t row = 1; row <= slots; ++row) {
        std::vector<std::int32_t> probes = {0, context / 2, context - 1};
        for (std::int32_t edge : positions) {
          for (std::int32_t probe : {edge - 1, edge}) {
            if (probe < context) probes.push_back(probe);
          }
        }
        for (std::int32_t position : probes) {
          const GraphBucket bucket = buckets.Of(row, position);
          // Nothing between the step and its bucket is one.
          const auto smaller_rows = [&](std::int32_t r) { return r >= row && r < bucket.rows; };
          const auto smaller = [&](std::int32_t p) { return p > position && p < bucket.positions; };
          ASSERT_TRUE(bucket.rows >= row && bucket.positions > position);
          ASSERT_TRUE(std::none_of(rows.begin(), rows.end(), smaller_rows));
          ASSERT_TRUE(std::none_of(positions.begin(), positions.end(), smaller));
          ASSERT_TRUE(std::binary_search(rows.begin(), rows.end(), bucket.rows));
          ASSERT_TRUE(std::binary_search(positions.begin(), positions.end(), bucket.positions));
        }
      }
    }
  }
}

TEST(GraphBuckets, PaddingIsAsLittleAsPromised) {
  for (std::int32_t slots : {7, 40, 95, 128, 1000}) {
    const GraphBuckets buckets(slots, 4096);
    for (std::int32_t rows = 1; rows <= slots; ++rows) {
      const std::int32_t bucket = buckets.Of(rows, 0).rows;
      EXPECT_LT((bucket - rows) * (bucket <= 64 ? 3 : 5), bucket) << rows << " of " << slots;
    }
    EXPECT_LE(buckets.rows().size(), 34u);
  }
}

TEST(GraphBucketsDeathTest, AStepThatNoneHoldsIsABug) {
  const GraphBuckets buckets(8, 100);
  EXPECT_DEATH((void)buckets.Of(0, 5), "no graph holds");
  EXPECT_DEATH((void)buckets.Of(9, 5), "no graph holds");
  EXPECT_DEATH((void)buckets.Of(8, 100), "no graph holds");
  EXPECT_DEATH(GraphBuckets(0, 1), "graphs for no step");
}

}  // namespace
}  // namespace thresher::model
