#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/comm/communicator.h"
#include "common/config/config.h"
#include "common/model/packed_model.h"
#include "common/sync/worker_pool.h"
#include "learner/advantage.h"
#include "learner/batch.h"
#include "learner/critic_state.h"
#include "learner/gradient.h"
#include "learner/leaf.h"

namespace thresher::learner {

struct CriticOptions {
  CriticKind kind = CriticKind::kOwn;
  model::ModelConfig model;
  OptimizerConfig adamw;
  ObjectiveConfig objective;
  std::int32_t valid_vocab = 0;  // see PackedModel::Make
  LeafOptions leaf;              // audit and value are not looked at
};

// What values the states of the reinforcement phase: a head on the final hidden states of a model
// of its own or of the policy, its moments, and the gradient of the step it is in, all in the
// machine's memory; only leaves may be a device's. For a batch Evaluate, then for each optimiser
// step Begin, Compute, AddRanks, Norm, and Step or Skip; calls in another order end the process.
// The bits are the same on any number of ranks and threads, for any micro-batches: leaves, tree and
// norm are those of the policy's gradient. One thread. Errors: those of passes and of the
// communicator.
class Critic {
 public:
  // `workers`: borrowed. `device`: computes the leaves, one after another; null: the workers do.
  Critic(const CriticOptions& options, WorkerPool& workers,
         std::unique_ptr<model::TrainingPass> device = nullptr);

  // As the phase begins: a head of zero, on the policy's weights where the trunk is its own.
  void Start(std::span<const float> policy);
  // Of a checkpoint; sizes are checked.
  void Restore(CriticState state);
  bool started() const { return !weights_.empty(); }
  std::span<const float> weights() const { return weights_; }
  // Copies weights and moments into `state`, whose memory is used again. Between steps.
  void Copy(CriticState& state) const;
  // For a checkpoint, between steps; Restore must be the next call.
  CriticState Lend();

  // Values, targets and advantages of this rank's tokens, under critic and policy as they are now
  // (policy: its master weights), and what the metrics say of those of all ranks. Collective.
  Status Evaluate(comm::Communicator& comm, std::span<const float> policy, StepBatch& batch);

  // Begins a step over so many leaves of this rank (a power of two). Returns what the policy's
  // leaves are to compute for it, to be used before Compute; null: nothing, its trunk is its own.
  const ValueTerm* Begin(std::size_t leaves);
  // After the policy's leaves. Adds to `stats` what theirs do not have yet.
  Status Compute(std::span<const LeafWork> leaves, const ObjectiveSpec& spec, LeafStats& stats);
  Status AddRanks(comm::Communicator& comm);
  double Norm();
  void Step(double gradient_scale);
  void Skip();

 private:
  std::span<const float> trunk() const;
  ValueTerm Term();
  std::span<float> gradient();  // in the order of the weights
  std::shared_ptr<const model::PackedModel> Packed(std::span<const float> weights,
                                                   bool with_backward) const;
  const std::shared_ptr<const model::PackedModel>& Own();
  // step(computer, leaf) for every leaf of `count`. Errors: the first that a leaf returns.
  Status ForLeaves(std::size_t count,
                   const std::function<Status(LeafComputer& computer, std::size_t leaf)>& step);
  Status EvaluateLeaves(std::span<const float> policy, std::span<LeafWork* const> leaves);

  const CriticOptions options_;
  const Estimator estimator_;  // kGae or kVTrace
  WorkerPool& workers_;
  const std::size_t trunk_size_;  // 0: shared
  BufferPool pool_;               // of gradients: GradientSize of a trunk of its own, and the head
  const bool on_device_;
  std::vector<LeafComputer> computers_;  // one for the device, or one for each worker
  AdamW adamw_;
  std::vector<float> weights_;
  std::shared_ptr<const model::PackedModel> own_;  // of its trunk, until it takes a step
  ValueTerm term_;                                 // of the step
  std::optional<GradientTree> tree_;               // of the step's leaves
  std::vector<float> sum_;                         // of them
};

}  // namespace thresher::learner
