#include "common/model/device_plan.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/model/arena.h"
#include "common/model/packed_model.h"
#include "common/model/weights.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/head.h"

namespace thresher::model {
namespace {

constexpr std::size_t kFloat = sizeof(float);
// What splits may take of a device: decode steps need a fraction of it, and prefill does without.
constexpr std::size_t kMaxSplitScratch = std::size_t{256} << 20;
constexpr std::size_t kProductScratch = std::size_t{40} << 20;  // kernels/cuda/gemm_bf16.h
constexpr std::size_t kMostStaging = std::size_t{32} << 20;     // some milliseconds of a bus
// Of the device for each kernel of a recording: "around 10KB per kernel node" (NVIDIA/cccl, pull
// request 3768, on executable graphs that CUDASTF keeps), rounded up.
constexpr std::size_t kRecordedKernel = std::size_t{12} << 10;
constexpr std::size_t kRounding = std::size_t{64} << 10;        // of each of some dozen buffers

std::int32_t PagesOf(std::int32_t positions) {
  constexpr auto kPage = static_cast<std::int32_t>(kernels::kKvPageSize);
  return (positions + kPage - 1) / kPage;
}

}  // namespace

const char* DeviceKernelSetName(DeviceKernelSet set) {
  return set == DeviceKernelSet::kFp32 ? "cpu-fp32-v1" : "cuda-bf16-sm90-v1";
}

std::optional<DeviceKernelSet> DeviceKernelSetOf(std::string_view name) {
  for (DeviceKernelSet set : {DeviceKernelSet::kFp32, DeviceKernelSet::kBf16}) {
    if (name == DeviceKernelSetName(set)) return set;
  }
  return std::nullopt;
}

std::size_t KvPageBytes(const ModelConfig& config, DeviceKernelSet set) {
  const std::size_t element = set == DeviceKernelSet::kFp32 ? kFloat : 2;
  return 2 * static_cast<std::size_t>(config.layers) *
         kernels::KvPageFloats(config.kv_heads, config.head_dim) * element;
}

std::size_t DeviceMatrixBytes(const ModelConfig& config, DeviceKernelSet set, bool with_backward) {
  if (set == DeviceKernelSet::kFp32) return PackedModelBytes(config, config.dtype, with_backward);
  std::size_t bytes = 0;
  for (const ParameterInfo& info : ParameterList(config)) {
    const bool vector = info.shape.size() == 1;
    // Rows begin at multiples of 8 elements.
    const std::size_t row =
        vector ? info.count : (static_cast<std::size_t>(info.shape[1]) + 7) / 8 * 8;
    bytes += Arena::Rounded(vector ? info.count * kFloat
                                   : static_cast<std::size_t>(info.shape[0]) * row * 2);
  }
  return bytes;
}

std::size_t DeviceWeightBytes(const ModelConfig& config, DeviceKernelSet set, bool with_backward) {
  // Both rotary tables are fp32.
  std::size_t bytes =
      static_cast<std::size_t>(config.context) * static_cast<std::size_t>(config.head_dim) * kFloat;
  return bytes + DeviceMatrixBytes(config, set, with_backward);
}

std::size_t WeightStagingBytes(const ModelConfig& config, DeviceKernelSet set) {
  if (set == DeviceKernelSet::kFp32) return 0;
  const std::int64_t width = config.width, ffn = config.ffn_width;
  const std::size_t largest = std::max(kernels::PackedBytes(config.dtype, config.vocab, width),
                                       kernels::PackedBytes(config.dtype, 2 * ffn, width));
  const std::size_t panel =
      kernels::PackedBytes(config.dtype, kernels::kGemmPanel,
                           std::max({config.width, config.ffn_width, config.q_width()}));
  return std::max(std::min(largest, kMostStaging), panel);
}

std::size_t SplitScratchBytes(const ModelConfig& config, std::int32_t slots) {
  constexpr auto kSplit = static_cast<std::size_t>(kernels::kAttentionSplit);
  const std::size_t splits = (static_cast<std::size_t>(config.context) + kSplit - 1) / kSplit;
  const std::size_t all = static_cast<std::size_t>(slots) * static_cast<std::size_t>(config.heads) *
                          splits * (static_cast<std::size_t>(config.head_dim) + 2) * kFloat;
  return std::min(all, kMaxSplitScratch);
}

std::size_t WidestOperand(const ModelConfig& config, bool with_gradients) {
  const std::int64_t widest =
      std::max({config.width, config.q_width(), 2 * config.ffn_width,
                config.q_width() + 2 * config.kv_width(),
                with_gradients ? static_cast<std::int32_t>(kHeadGradIds) : 0});
  return static_cast<std::size_t>((widest + 7) / 8 * 8);  // rows begin at multiples of 8
}

std::size_t ProductBytes(const ModelConfig& config, DeviceKernelSet set, std::size_t rows,
                         bool with_gradients) {
  if (set == DeviceKernelSet::kFp32) return 0;
  const std::size_t operand = rows * WidestOperand(config, with_gradients) * 2;
  return (with_gradients ? 2 : 1) * operand + kProductScratch;
}

std::size_t StepWorkspaceBytes(const ModelConfig& config, const DevicePlanOptions& options) {
  const auto rows = static_cast<std::size_t>(options.max_rows);
  const auto slots = static_cast<std::size_t>(options.slots);
  const auto width = static_cast<std::size_t>(config.width);
  const auto qkv = static_cast<std::size_t>(config.q_width() + 2 * config.kv_width());
  // Residual stream before and in the layer, its two norms, q k v, attention, gate and up, their
  // product; roots of mean squares, of heads too; the token.
  const std::size_t row =
      4 * width + qkv + static_cast<std::size_t>(config.q_width()) +
      3 * static_cast<std::size_t>(config.ffn_width) + 3 +
      (config.qk_norm() ? static_cast<std::size_t>(config.heads + config.kv_heads) : 0);
  const auto blocks = static_cast<std::size_t>(kernels::HeadBlockCount(config.vocab));
  std::size_t head = 2 * slots * width * kFloat + slots * blocks * sizeof(kernels::HeadBlock);
  if (options.set == DeviceKernelSet::kBf16) {
    head += slots * static_cast<std::size_t>(config.vocab) * kFloat;  // all logits of the rows
  }
  const std::size_t tables =
      3 * (slots + 1) * static_cast<std::size_t>(PagesOf(config.context)) * sizeof(std::int32_t);
  return rows * row * kFloat + head + ProductBytes(config, options.set, rows, false) + tables +
         SplitScratchBytes(config, options.slots) + WeightStagingBytes(config, options.set) +
         kRounding;
}

std::int64_t DecodeStepKernels(const ModelConfig& config) {
  // Two norms, rotation, write of keys and values, attention and its splits, gated unit, two
  // additions; of four products each the operand, the product and the sum of its parts.
  const std::int64_t layer = 9 + 4 * 3 + (config.qk_norm() ? 2 : 0);
  return config.layers * layer + 12;  // tokens, embedding, head
}

std::size_t RecordingBytes(const ModelConfig& config, std::int32_t slots, int versions) {
  const GraphBuckets buckets(slots, config.context);
  const std::size_t sizes = buckets.rows().size() * buckets.positions().size();
  return static_cast<std::size_t>(versions) * sizes *
         static_cast<std::size_t>(DecodeStepKernels(config)) * kRecordedKernel;
}

Result<DevicePlan> PlanDevice(const ModelConfig& config, const DevicePlanOptions& options,
                              std::size_t free_bytes) {
  DevicePlan plan;
  plan.weights = DeviceWeightBytes(config, options.set, false);
  plan.second_weights = plan.weights;
  plan.workspace = StepWorkspaceBytes(config, options);
  plan.graphs = options.graphs ? RecordingBytes(config, options.slots, 2) : 0;
  const std::size_t page = KvPageBytes(config, options.set);
  const std::size_t least =
      static_cast<std::size_t>(options.pages > 0 ? options.pages : PagesOf(config.context));
  const auto fits = [&] {
    const std::size_t others = plan.weights + plan.second_weights + plan.workspace + plan.graphs;
    return others + least * page <= free_bytes;
  };
  // Without room for two versions the next one waits until the last step has ended.
  if (!fits()) {
    plan.second_weights = 0;
    plan.graphs = options.graphs ? RecordingBytes(config, options.slots, 1) : 0;
  }
  if (!fits()) plan.graphs = 0;
  if (!fits()) {
    const auto mib = [](std::size_t bytes) { return std::to_string((bytes >> 20) + 1) + " MiB"; };
    return ResourceExhausted(
        "the model does not fit the device: weights " + mib(plan.weights) + ", workspace " +
        mib(plan.workspace) + " and a KV cache of " + std::to_string(least) + " pages " +
        mib(least * page) + "; free: " + mib(free_bytes) +
        " (a smaller batch, context or prefill_chunk, or kv_pages, takes less)");
  }
  const std::size_t room =
      free_bytes - plan.weights - plan.second_weights - plan.workspace - plan.graphs;
  const std::size_t wanted =
      static_cast<std::size_t>(options.slots) * static_cast<std::size_t>(PagesOf(config.context));
  plan.pages = static_cast<std::int32_t>(
      options.pages > 0 ? least : std::min({wanted, room / page, std::size_t{1} << 30}));
  plan.kv = static_cast<std::size_t>(plan.pages) * page;
  return plan;
}

GraphBuckets::GraphBuckets(std::int32_t slots, std::int32_t context) {
  THRESHER_CHECK(slots >= 1 && context >= 1, "graphs for no step");
  // Padding is less than a third of a small bucket's rows, a fifth of a large one's.
  for (std::int32_t rows : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 48, 56, 64}) {
    if (rows < slots) rows_.push_back(rows);
  }
  for (std::int32_t rows = 80; rows < slots; rows += rows < 128 ? 16 : rows < 256 ? 32 : 64) {
    rows_.push_back(rows);
  }
  rows_.push_back(slots);
  for (std::int32_t positions = 1024; positions < context; positions *= 2) {
    positions_.push_back(positions);
  }
  positions_.push_back(context);
}

GraphBucket GraphBuckets::Of(std::int32_t rows, std::int32_t position) const {
  const auto bucket_rows = std::lower_bound(rows_.begin(), rows_.end(), rows);
  const auto bucket_positions = std::upper_bound(positions_.begin(), positions_.end(), position);
  THRESHER_CHECK(rows >= 1 && bucket_rows != rows_.end() && bucket_positions != positions_.end(),
                 "a step that no graph holds");
  return {*bucket_rows, *bucket_positions};
}

}  // namespace thresher::model
