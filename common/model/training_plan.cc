#include "common/model/training_plan.h"

#include <algorithm>
#include <bit>

#include "common/model/forward.h"
#include "common/model/weights.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/head.h"

namespace thresher::model {
namespace {

constexpr std::size_t kFloat = sizeof(float);

// Floats of a row and layer that the backward pass reads, the layer's input aside.
std::size_t LayerFloats(const ModelConfig& config) {
  const std::size_t heads = static_cast<std::size_t>(config.heads + config.kv_heads);
  const std::size_t qk_norm =
      config.qk_norm() ? heads * (static_cast<std::size_t>(config.head_dim) + 1) : 0;
  return 3 * static_cast<std::size_t>(config.width) + 2 +
         static_cast<std::size_t>(2 * config.q_width() + 2 * config.kv_width()) +
         2 * static_cast<std::size_t>(config.ffn_width) + static_cast<std::size_t>(config.heads) +
         qk_norm;
}

// Of one row: a tape of all layers, or of the layers' inputs and one layer.
std::size_t TapeBytes(const ModelConfig& config, bool recompute) {
  const auto layers = static_cast<std::size_t>(config.layers);
  const std::size_t inputs = (layers + 1) * static_cast<std::size_t>(config.width) + 1;
  return (inputs + (recompute ? 1 : layers) * LayerFloats(config)) * kFloat;
}

// Of one row, scratch of attention's gradient: a sum of each head; on tensor cores (kernels/cuda/
// attention_bf16_backward.h) two, and q, k, v and the gradient of their result in bf16.
std::size_t AttentionGradBytes(const ModelConfig& config, DeviceKernelSet set) {
  constexpr std::int32_t kMostDim = 128;
  const std::size_t sums = static_cast<std::size_t>(config.heads) * kFloat;
  if (set == DeviceKernelSet::kFp32 || config.head_dim > kMostDim) return sums;
  return 2 * sums + 2 * static_cast<std::size_t>(config.q_width() + config.kv_width()) * 2;
}

// Of one row: a pass that leaves nothing for the backward pass has one layer's, but what attention
// and the norm of q and k keep, and the residual stream.
std::size_t UntapedBytes(const ModelConfig& config) {
  const auto heads = static_cast<std::size_t>(config.heads);
  const std::size_t qk_raw = config.qk_norm()
                                 ? (heads + static_cast<std::size_t>(config.kv_heads)) *
                                       static_cast<std::size_t>(config.head_dim)
                                 : 0;
  return (static_cast<std::size_t>(config.width) + LayerFloats(config) - heads - qk_raw) * kFloat;
}

// Of one row: gradients on their way back, the norm's output and its gradient, the columns of rows
// and log-probabilities.
std::size_t BackwardBytes(const ModelConfig& config, DeviceKernelSet set) {
  constexpr std::size_t kColumns = 10;
  return (4 * static_cast<std::size_t>(config.ffn_width) +
          4 * static_cast<std::size_t>(config.width) +
          static_cast<std::size_t>(2 * config.q_width() + 2 * config.kv_width()) + kColumns) *
             kFloat +
         AttentionGradBytes(config, set);
}

// Scans of the vocabulary and the head's gradient.
std::size_t HeadBytes(const ModelConfig& config, const TrainingPlanOptions& options) {
  const auto rows = static_cast<std::size_t>(options.rows);
  const std::size_t most = std::min(rows, static_cast<std::size_t>(kHeadRows));
  const auto blocks = static_cast<std::size_t>(kernels::HeadBlockCount(config.vocab));
  const std::size_t scan = most * blocks * sizeof(kernels::HeadBlock);
  if (options.set == DeviceKernelSet::kBf16) {
    return scan + most * static_cast<std::size_t>(kHeadGradIds) * kFloat;
  }
  const std::size_t least = rows * static_cast<std::size_t>(kernels::kVocabBlock) * kFloat;
  const std::size_t best = least * std::min<std::size_t>(blocks, kHeadGradBlocks);
  return scan + std::min(best, std::max(least, kHeadGradScratch));
}

}  // namespace

TrainingPlan PlanTraining(const ModelConfig& config, const TrainingPlanOptions& options) {
  constexpr auto kPage = static_cast<std::int64_t>(kernels::kKvPageSize);
  const auto rows = static_cast<std::size_t>(options.rows);
  // Each sequence fills its last page in part; a page holds a row at least.
  const std::int64_t pages = std::min(options.rows, options.rows / kPage + options.sequences);
  TrainingPlan plan;
  plan.weights = DeviceWeightBytes(config, options.set, true);
  plan.gradient = GradientSize(config) * kFloat;
  if (options.resident_leaves > 0) {
    const std::size_t vector = ParameterCount(config) * kFloat;
    const auto leaves = static_cast<std::uint64_t>(options.resident_leaves);
    plan.parameters = 3 * vector;
    plan.gradient += static_cast<std::size_t>(std::bit_width(leaves) - 1) * vector;
    if (leaves == 1 && options.ranks) plan.gradient += vector / 2;  // of the other ranks
  }
  plan.activations = rows * TapeBytes(config, options.recompute);
  if (options.reference) {
    plan.reference = DeviceWeightBytes(config, options.set, false);
    // Its pass uses the small tape's room, which the policy's pass has if its tape is of that kind.
    if (!options.recompute) plan.activations += rows * UntapedBytes(config);
  }
  plan.kv = static_cast<std::size_t>(pages) * KvPageBytes(config, options.set);
  plan.scratch = rows * BackwardBytes(config, options.set) + HeadBytes(config, options) +
                 ProductBytes(config, options.set, rows, true) +
                 WeightStagingBytes(config, options.set);
  return plan;
}

}  // namespace thresher::model
