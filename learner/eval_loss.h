#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/comm/communicator.h"
#include "common/examples/example.h"
#include "common/model/run_context.h"
#include "common/sync/worker_pool.h"
#include "learner/leaf.h"

namespace thresher::learner {

// The loss on examples that are not trained on: minus the mean log-probability of their loss
// tokens, and its exponential, the perplexity. Taken on the CPU, one LeafComputer for each worker,
// over the first supervised.eval_examples of them in the cut of a batch into gradient leaves: the
// same bits on any number of ranks and threads.
class EvalLoss {
 public:
  struct Measured {
    double loss = 0, perplexity = 1;
    std::uint64_t tokens = 0;
  };

  // All borrowed.
  EvalLoss(const model::RunContext& run, const examples::SupervisedSource& source,
           WorkerPool& workers);

  // weights: flat, as the optimiser has them. Collective. Errors: the source's, those of passes and
  // of the communicator.
  Result<Measured> Measure(comm::Communicator& comm, std::span<const float> weights);

 private:
  struct Sum {
    double logprob = 0;
    std::uint64_t tokens = 0;
  };
  Result<Sum> Leaf(std::uint32_t leaf, LeafComputer& computer,
                   const std::shared_ptr<const model::PackedModel>& policy) const;

  const model::RunContext& run_;
  const examples::SupervisedSource& source_;
  WorkerPool& workers_;
  std::vector<LeafComputer> computers_;
};

}  // namespace thresher::learner
