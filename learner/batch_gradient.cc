#include "learner/batch_gradient.h"

#include <utility>

#include "common/model/forward.h"

namespace thresher::learner {

BatchGradient::BatchGradient(const model::ModelConfig& config, std::int32_t valid_vocab,
                             WorkerPool& workers)
    : config_(config),
      valid_vocab_(valid_vocab),
      workers_(workers),
      pool_(model::GradientSize(config)),
      computers_(static_cast<std::size_t>(workers.threads())) {}

std::vector<float> BatchGradient::Compute(std::span<const float> weights,
                                          const model::PackedModel* reference,
                                          std::span<const LeafWork> leaves, const LossSpec& spec,
                                          const LeafOptions& options, LeafStats& stats) {
  auto policy = model::PackedModel::Make(config_, weights, valid_vocab_, true);
  GradientTree tree(leaves.size(), pool_);
  std::vector<LeafStats> leaf_stats(leaves.size());
  workers_.Run(static_cast<std::int64_t>(leaves.size()), [&](int worker, std::int64_t index) {
    const auto leaf = static_cast<std::size_t>(index);
    std::vector<float> gradient = pool_.Take();
    leaf_stats[leaf] = computers_[static_cast<std::size_t>(worker)].Compute(
        *policy, reference, leaves[leaf], spec, options, gradient);
    model::FoldTiedGradient(config_, gradient);
    tree.Add(leaf, std::move(gradient));
  });
  for (const auto& leaf : leaf_stats) stats.Add(leaf);
  return tree.TakeRoot();
}

}  // namespace thresher::learner
