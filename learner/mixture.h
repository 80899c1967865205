#pragma once

#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/examples/example.h"
#include "learner/batch.h"

namespace thresher::learner {

// The examples of an RL step's supervised loss (objective.supervised_coefficient): those of the
// source's stream behind the supervised phase's, supervised.mixture_batch a step, cut into gradient
// leaves as a batch is. Which they are depends on the step alone: on no rank and on no restart.
class Mixture {
 public:
  // Both borrowed.
  Mixture(const Config& config, const examples::SupervisedSource& source)
      : config_(config), source_(source) {}

  // Puts this rank's into its leaves, and their tokens over all ranks into each minibatch. Every
  // rank reads all of them, for these numbers. Errors: the source's.
  Status Add(const comm::Communicator& comm, const StepPlan& plan, StepBatch& batch) const;

 private:
  const Config& config_;
  const examples::SupervisedSource& source_;
};

// The example as a sequence to train on.
TrainSequence SequenceOf(const examples::Example& example, std::uint64_t item);

}  // namespace thresher::learner
