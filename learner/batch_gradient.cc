#include "learner/batch_gradient.h"

#include <utility>

#include "common/model/forward.h"

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
    LeafStats& stats) {
  auto policy =
      model::PackedModel::Make(config_, weights, valid_vocab_, computers_[0].NeedsTransposes());
  GradientTree tree(leaves.size(), sums());
  std::vector<Result<LeafStats>> leaf_stats(leaves.size(), LeafStats{});
  const auto compute = [&](std::size_t computer, std::int64_t index) {
    const auto leaf = static_cast<std::size_t>(index);
    std::vector<float> gradient = pool_.Take(), head;
    if (options.value != nullptr) head = options.value->pool->Take();
    leaf_stats[leaf] = computers_[computer].Compute(policy, reference, leaves[leaf], spec, options,
                                                    gradient, head);
    if (options.value != nullptr) options.value->sum->Add(leaf, std::move(head));
    model::FoldTiedGradient(config_, gradient);
    if (projected_) {
      std::vector<float> part = projected_->Take();
      projection_.project(gradient, part);
      pool_.Give(std::exchange(gradient, std::move(part)));
    }
    tree.Add(leaf, std::move(gradient));
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
  std::vector<float> gradient = tree.TakeRoot();
  for (const auto& leaf : leaf_stats) {
    THRESHER_RETURN_IF_ERROR(leaf.status());
    stats.Add(*leaf);
  }
  return gradient;
}

}  // namespace thresher::learner
