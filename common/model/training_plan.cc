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

// Of one row: gradients on their way back, the norm's output and its gradient, the columns of rows
// and log-probabilities.
std::size_t BackwardBytes(const ModelConfig& config) {
  constexpr std::size_t kColumns = 9;
  const auto heads = static_cast<std::size_t>(config.heads);
  return (4 * static_cast<std::size_t>(config.ffn_width) +
          4 * static_cast<std::size_t>(config.width) +
          static_cast<std::size_t>(2 * config.q_width() + 2 * config.kv_width()) + heads +
          kColumns) *
         kFloat;
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
    // Its pass has a tape of the small kind, which the policy's pass shares if it is of that kind.
    if (!options.recompute) plan.activations += rows * TapeBytes(config, true);
  }
  plan.kv = static_cast<std::size_t>(pages) * KvPageBytes(config, options.set);
  plan.scratch = rows * BackwardBytes(config) + HeadBytes(config, options) +
                 ProductBytes(config, options.set, rows, true);
  return plan;
}

}  // namespace thresher::model
