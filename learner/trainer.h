#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/fault.h"
#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/config/plan.h"
#include "common/model/run_context.h"
#include "common/sync/device_turn.h"
#include "common/sync/worker_pool.h"
#include "learner/batch.h"
#include "learner/checkpoint.h"
#include "learner/checkpoint_saver.h"
#include "learner/critic.h"
#include "learner/eval_loss.h"
#include "learner/leaf.h"
#include "learner/mixture.h"
#include "learner/optimizer.h"
#include "learner/reward_penalty.h"
#include "learner/session.h"
#include "learner/step_metrics.h"

namespace thresher::learner {

// The optimiser loop of one learner rank: fetch, compute leaves, reduce in the fixed tree, clip,
// step; rank 0 also commits, publishes and checkpoints. All ranks hold all weights and compute the
// same bits; a rank that does not is found at the next checkpoint (AgreeOnState) and ends the job.
class Trainer {
 public:
  // device: computes the leaves, and holds the parameters if it has some; else the CPU does. turn:
  // if the device is shared with actors: it is taken when a batch is there, kept until an actor
  // asks for it, and given at the latest when this rank waits for the broker.
  Trainer(const model::RunContext& run, comm::Communicator& comm, Session& session,
          FaultPlan faults, model::TrainingDevice device = {},
          std::unique_ptr<DeviceTurn> turn = nullptr);
  ~Trainer();

  // Restores the newest checkpoint or initialises the weights; all ranks agree on the step. A
  // restored checkpoint that the broker has not heard of (it knows `durable_steps`) is reported.
  Status Start(std::uint32_t durable_steps);
  // Trains to the plan's end, or until a stop is asked for: then writes a checkpoint and returns
  // kCancelled. Other errors end the job; the newest checkpoint is what counts.
  Status Run();
  // When the run is over: `best`, the steps whose checkpoints stay for their evaluation.
  Status End(std::vector<std::uint32_t> best);

 private:
  Result<std::vector<float>> InitialWeights() const;
  Status OneStep(const StepPlan& plan);
  Result<StepOutcome> Train(const StepPlan& plan, StepBatch& batch);
  ObjectiveSpec SpecOf(const StepPlan& plan, const Minibatch& part) const;
  double LearningRate(const StepPlan& plan) const;
  Status TrainPart(const StepPlan& plan, const Minibatch& part, bool last, StepOutcome& outcome);
  // What the step's gradients do to the weights: of the policy, and of the critic.
  Status StepPolicy(const StepPlan& plan, const Minibatch& part, StepOutcome& outcome);
  Status StepCritic(const StepPlan& plan, const Minibatch& part, StepOutcome& outcome);
  // The factor that clips a gradient to the norm allowed; nothing: the weights are to stay.
  std::optional<double> GradientScale(const StepPlan& plan, std::uint64_t tokens, double norm,
                                      const char* whose);
  bool HasCritic(const StepPlan& plan) const;
  // The step before which adapters begin; nothing: there are none. Whether a state of after this
  // many steps has them.
  std::optional<std::uint32_t> FirstAdaptedStep() const;
  bool AdaptersBegun() const;
  // What the optimiser moves, of all that there is.
  double TrainedShare() const;
  Status EvaluateBatch(StepBatch& batch);
  Status ComputeLeaves(const StepPlan& plan, const Minibatch& part, bool first, LeafStats& stats);
  Status ShareStats(LeafStats& stats);
  Status Commit(const StepPlan& plan, const StepBatch& batch, const StepOutcome& outcome);
  Status PublishState();
  Status Checkpoint();
  Status Save();
  Status AgreeOnState();
  Status BeginRlStep(const StepPlan& plan);
  void PackReference();
  // Opens what examples come from, if there is something to do with them here.
  Status OpenExamples();
  Status MeasureLoss(const StepPlan& plan, StepBatch& batch);
  // Errors: kCancelled; kDeadlineExceeded; the device's, when it was given the last time.
  Status AwaitTurn();
  // To an actor that has asked for it, unless the device holds what a step still needs.
  void OfferTurn();

  const model::RunContext& run_;
  comm::Communicator& comm_;
  Session& session_;
  FaultPlan faults_;
  Plan plan_;
  TrainState state_;  // but for weights and moments, which optimizer and critic have
  WorkerPool workers_;
  std::unique_ptr<Critic> critic_;  // null: the objective has none
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<RewardPenalty> penalty_;  // if there is one in the reward
  std::unique_ptr<examples::SupervisedSource> examples_;
  std::unique_ptr<Mixture> mixture_;     // if there is a supervised loss beside the policy's
  std::unique_ptr<EvalLoss> eval_loss_;  // if it is measured
  std::unique_ptr<DeviceTurn> turn_;
  Status given_;  // how the device's memory was given back
  std::shared_ptr<const model::PackedModel> reference_;
  std::unique_ptr<CheckpointSaver> saver_;  // of rank 0
  std::optional<std::uint32_t> saved_;      // the newest step that was saved in this life
  std::uint64_t skipped_steps_ = 0;
  std::uint32_t longest_step_ms_ = 0;
};

}  // namespace thresher::learner
