#pragma once

#include <memory>
#include <optional>
#include <string>

#include "learner/batch_gradient.h"
#include "learner/optimizer.h"

namespace thresher::learner {

// Everything in the machine's memory, divided over the workers; only leaves may be a device's. With
// learner.zero a rank has the moments of its shard alone, and gets the weights of the others'
// after each step; rank 0 collects the moments for a checkpoint. Else, with options.double_buffer,
// a checkpoint and the next step have a set of weights and moments each.
class HostOptimizer final : public Optimizer {
 public:
  // device: computes the leaves; null: the workers do.
  HostOptimizer(const OptimizerOptions& options, WorkerPool& workers,
                std::unique_ptr<model::TrainingPass> device);

  Status Restore(std::vector<float> weights, AdamW::State moments) override;
  Status Adapt(AdapterState adapters) override;
  std::size_t TrainedCount() const override { return adamw_.count(); }
  Status ResetMoments() override;
  Status Compute(std::shared_ptr<const model::PackedModel> reference,
                 std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                 const LeafOptions& options, LeafStats& stats) override;
  Status AddRanks(comm::Communicator& comm) override;
  GradientSync::Figures TakeSyncFigures() override;
  Result<double> Norm() override;
  Status Step(double learning_rate, double gradient_scale) override;
  Status Skip() override;
  Result<bool> ReleaseDevice() override;
  Result<std::span<const std::byte>> Published() override;
  Result<std::span<const float>> Weights(std::vector<float>& room) override;
  Status Copy(TrainState& state) override;
  Status Share(TrainState& state) override;
  Status Lend(TrainState& state) override;
  void TakeBack(TrainState& state) override;
  Status ShareShard() override;

 private:
  // From here on these parameters are trained, with fresh moments; ranks have their shards of them.
  void Train(std::vector<model::ParameterInfo> list);
  // Puts `all`, on rank 0, together from the shards of all ranks; null: on the others.
  Status GatherShards(std::span<const float> own, std::vector<float>* all);
  Status GatherMoments(AdamW::State* all);
  Status GatherWeights();
  // Whether what is saved is all that a step moves.
  bool MovesAll() const;
  // What was shared is copied back.
  void Settle();
  std::span<const float> weights() const {
    return shared_ != nullptr ? shared_->weights : weights_;
  }
  // The gradient with regard to what is trained.
  std::span<float> flat();
  // What the optimiser moves: the weights, or adapters.
  std::span<float> trained() { return adapters_.empty() ? weights_ : adapters_.weights; }
  void Merge();

  const OptimizerOptions options_;
  WorkerPool& workers_;
  BatchGradient leaves_;
  std::vector<model::ParameterInfo> list_;  // what is trained
  std::unique_ptr<GradientSync> sync_;      // null: no other ranks
  std::optional<std::vector<Piece>> shard_;
  AdamW adamw_;
  GradientSync::Figures figures_;  // since they were taken
  std::vector<float> weights_;     // with adapters merged
  // Weights and moments are there until the next step, and in weights_ and adamw_ is anything.
  const TrainState* shared_ = nullptr;
  TrainState room_;  // for the first to share
  AdapterState adapters_;
  std::vector<float> gradient_;  // as of BatchGradient; empty between steps
  std::string published_;        // of 16-bit weights, once they have been asked for
};

}  // namespace thresher::learner
