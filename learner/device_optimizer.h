#pragma once

#include <optional>
#include <string>

#include "learner/optimizer.h"

namespace thresher::learner {

// Everything in the memory of the device that computes the leaves (model::ResidentParameters).
// Published weights come to the host once a step, where they are asked for, the rest for
// checkpoints alone. On a shared device all of it is on the host while others have their turn.
class DeviceOptimizer final : public Optimizer {
 public:
  // Both of `device` are there.
  DeviceOptimizer(const OptimizerOptions& options, model::TrainingDevice device);

  Status Restore(std::vector<float> weights, AdamW::State moments) override;
  std::size_t TrainedCount() const override { return count_; }
  Status ResetMoments() override;
  Status Compute(std::shared_ptr<const model::PackedModel> reference,
                 std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                 const LeafOptions& options, LeafStats& stats) override;
  Status AddRanks(comm::Communicator& comm) override;
  Result<double> Norm() override;
  Status Step(double learning_rate, double gradient_scale) override;
  Status Skip() override;
  Result<bool> ReleaseDevice() override;
  Result<std::span<const std::byte>> Published() override;
  Result<std::span<const float>> Weights(std::vector<float>& room) override;
  Status Copy(TrainState& state) override;
  Status Lend(TrainState& state) override;
  void TakeBack(TrainState& state) override;

 private:
  struct OnHost {
    std::vector<float> weights;
    AdamW::State moments;  // their number of steps is steps_
  };

  // Weights and moments to the device, with room for a step's sum; and to the host.
  Status Upload(const OnHost& from);
  Status Download(std::vector<float>& weights, AdamW::State& moments) const;

  const OptimizerOptions options_;
  const std::size_t count_;  // of parameters
  const std::shared_ptr<model::ResidentParameters> parameters_;
  LeafComputer computer_;
  std::uint64_t steps_ = 0;  // of AdamW
  OnHost host_;              // of a shared device: where they are while others have it
  bool on_host_ = false;
  bool in_step_ = false;                                 // the gradient is on the device
  std::string narrowed_;                                 // what was published from host_
  std::optional<std::span<const std::byte>> published_;  // of the weights as they are
};

}  // namespace thresher::learner
