#include "learner/batch_gradient.h"

#include <utility>

#include "common/model/forward.h"
#include "common/model/weights.h"

namespace thresher::learner {

BatchGradient::BatchGradient(const model::ModelConfig& config, std::int32_t valid_vocab,
                             WorkerPool& workers, std::unique_ptr<model::TrainingPass> device)
    : config_(config),
      valid_vocab_(valid_vocab),
      workers_(workers),
      pool_(model::GradientSize(config)),
      on_device_(device != nullptr) {
  if (on_device_) computers_.emplace_back(std::move(device));
  while (!on_device_ && computers_.size() < static_cast<std::size_t>(workers.threads())) {
    computers_.emplace_back(model::MakeCpuTrainingPass(config));
  }
}

void BatchGradient::Project(Projection projection) {
  projection_ = std::move(projection);
  pool_.Trim();
  projected_ = std::make_unique<BufferPool>(projection_.size);
  for (LeafComputer& computer : computers_) computer.Need(projection_.needs);
}

Result<std::vector<float>> BatchGradient::Compute(
    std::span<const float> weights, std::shared_ptr<const model::PackedModel> reference,
    std::span<const LeafWork> leaves, const ObjectiveSpec& spec, const LeafOptions& options,
    LeafStats& stats, GradientTree::OnRoot on_root) {
  auto policy = model::PackedModel::Make(
      config_, weights, valid_vocab_, computers_[0].NeedsTransposes(), std::exchange(spare_, {}));
  GradientTree tree(leaves.size(), sums(), projected_ ? 0 : model::ParameterCount(config_),
                    std::move(on_root));
  std::vector<Result<LeafStats>> leaf_stats(leaves.size(), LeafStats{});
  const auto compute = [&](std::size_t computer, std::int64_t index) {
    const auto leaf = static_cast<std::size_t>(index);
    std::vector<float> whole, head;  // where that is not what is added up
    if (projected_) whole = pool_.Take();
    const std::span<float> gradient = projected_ ? whole : tree.Begin(leaf, pool_.Take());
    model::OnFinal on_final;
    if (!projected_) on_final = [&tree, leaf](std::size_t from) { tree.Ready(leaf, from); };
    if (options.value != nullptr) head = options.value->pool->Take();
    leaf_stats[leaf] = computers_[computer].Compute(policy, reference, leaves[leaf], spec, options,
                                                    gradient, head, on_final);
    if (options.value != nullptr) options.value->sum->Add(leaf, std::move(head));
    model::FoldTiedGradient(config_, gradient);
    if (on_device_ && !leaf_stats[leaf].ok()) return;
    if (!projected_) return tree.Ready(leaf, 0);
    std::vector<float> part = projected_->Take();
    projection_.project(gradient, part);
    pool_.Give(std::move(whole));
    tree.Add(leaf, std::move(part));
  };
  const auto count = static_cast<std::int64_t>(leaves.size());
  for (std::int64_t leaf = 0; on_device_ && leaf < count; ++leaf) {
    compute(0, leaf);
    // A pass that has failed within a leaf begins no other.
    THRESHER_RETURN_IF_ERROR(leaf_stats[static_cast<std::size_t>(leaf)].status());
  }
  if (!on_device_) {
    workers_.Run(count, [&](int worker, std::int64_t leaf) {
      compute(static_cast<std::size_t>(worker), leaf);
    });
  }
  if (!on_device_) spare_ = std::move(policy);
  std::vector<float> gradient = tree.TakeRoot();
  for (const auto& leaf : leaf_stats) {
    if (!leaf.ok()) {
      Recycle(std::move(gradient));  // on_root's user may still read it
      return leaf.status();
    }
    stats.Add(*leaf);
  }
  return gradient;
}

}  // namespace thresher::learner
