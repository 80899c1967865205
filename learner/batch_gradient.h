#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/model/packed_model.h"
#include "common/sync/worker_pool.h"
#include "learner/gradient.h"
#include "learner/leaf.h"

namespace thresher::learner {

// What of a model's gradient is trained on, leaf by leaf, before anything is added up: so it is the
// same on any number of ranks, and no rank sends more than that.
struct Projection {
  std::size_t size = 0;
  // gradient: of ParameterCount elements at least. out: `size` elements, to be overwritten.
  // Thread-safe.
  std::function<void(std::span<const float> gradient, std::span<float> out)> project;
  model::GradientNeeds needs{};
};

// The gradient of a rank's leaves, summed in the fixed tree: packs the weights and gives the leaves
// to a worker pool, one LeafComputer for each worker. Not thread-safe.
class BatchGradient {
 public:
  // `workers`: borrowed. valid_vocab: see PackedModel::Make. `device`: computes the leaves, one
  // after another; null: the workers do.
  BatchGradient(const model::ModelConfig& config, std::int32_t valid_vocab, WorkerPool& workers,
                std::unique_ptr<model::TrainingPass> device = nullptr);

  // From here on gradients are what this makes of them. Not while one is out.
  void Project(Projection projection);

  // weights: flat, ParameterCount floats. `reference` may be null. Returns GradientSize floats, of
  // which the first ParameterCount are the sum, or those of the projection, to be given back with
  // Recycle (on_root is told of them as they become final, on the workers' threads; with a
  // projection when all are); the leaves' statistics are added to
  // `stats` in order. Errors: the passes'.
  Result<std::vector<float>> Compute(std::span<const float> weights,
                                     std::shared_ptr<const model::PackedModel> reference,
                                     std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                                     const LeafOptions& options, LeafStats& stats,
                                     GradientTree::OnRoot on_root = {});
  void Recycle(std::vector<float> gradient) { sums().Give(std::move(gradient)); }
  // Gives the device's memory back; the next Compute takes it again.
  void ReleaseDevice() {
    if (on_device_) computers_[0].Release();
  }

 private:
  // Of what is added up.
  BufferPool& sums() { return projected_ ? *projected_ : pool_; }

  model::ModelConfig config_;
  std::int32_t valid_vocab_;
  WorkerPool& workers_;
  BufferPool pool_;  // of leaves' gradients
  Projection projection_;
  std::unique_ptr<BufferPool> projected_;  // null: nothing is projected
  const bool on_device_;
  std::shared_ptr<const model::PackedModel> spare_;  // of the last step, for its memory
  std::vector<LeafComputer> computers_;  // one for the device, or one for each worker
};

}  // namespace thresher::learner
