#pragma once

#include <memory>
#include <span>
#include <vector>

#include "common/comm/communicator.h"
#include "common/config/config.h"
#include "common/model/packed_model.h"
#include "common/model/run_context.h"
#include "common/sync/worker_pool.h"
#include "learner/batch.h"
#include "learner/leaf.h"

namespace thresher::learner {

// A penalty on leaving the reference policy that is taken off the reward (objective.kl_in: reward),
// as in RLHF since Ziegler et al. 2019, arXiv:1909.08593: coefficient times the estimate (k1 or k3)
// of KL(b | f), b the policy that drew, as recorded, f the reference. With a critic off the reward
// of each token; else off that of the sample, its tokens' sum. No gradient flows through it.
// In the machine's memory, one LeafComputer for each worker. The bits are the same on any number of
// ranks and threads.
class RewardPenalty {
 public:
  // `workers`: borrowed. Made only where the configuration asks for it.
  RewardPenalty(const model::RunContext& run, WorkerPool& workers);

  // Takes the penalty off a batch whose advantages are still those of its rewards, makes them anew,
  // and adds reward_penalty to the metrics. Before a critic evaluates it. Collective. Errors: those
  // of passes and of the communicator.
  Status Apply(comm::Communicator& comm, std::shared_ptr<const model::PackedModel> reference,
               StepBatch& batch);

 private:
  const Config& config_;
  WorkerPool& workers_;
  std::vector<LeafComputer> computers_;  // one for each worker
};

// Of a sequence's rows, in its loss; `reference`: f of each row.
std::vector<double> PenaltyOf(const ObjectiveConfig& objective, const TrainSequence& sequence,
                              std::span<const float> reference);

}  // namespace thresher::learner
