#include "learner/mixture.h"

#include <utility>

namespace thresher::learner {

TrainSequence SequenceOf(const examples::Example& example, std::uint64_t item) {
  return PrepareSequence(example.Record({Stream::kSupervised, 0, item, 0}, ""), 0);
}

Status Mixture::Add(const comm::Communicator& comm, const StepPlan& plan, StepBatch& batch) const {
  const auto items = static_cast<std::uint32_t>(config_.supervised.mixture_batch);
  const auto leaves = static_cast<std::uint32_t>(config_.learner.grad_leaves);
  const std::uint64_t first = std::uint64_t(config_.supervised.steps) * config_.supervised.batch +
                              std::uint64_t{plan.phase_step} * items;
  const std::vector<LeafWork*> own = OwnLeaves(batch);
  const std::uint32_t begin = comm.rank().value * (leaves / comm.size());
  for (std::uint32_t leaf = 0; leaf < leaves; ++leaf) {
    const LeafRange range = GradientLeaf(items, leaves, leaf);
    Minibatch& part = batch.minibatches[leaf % batch.minibatches.size()];
    const bool mine = leaf >= begin && leaf < begin + own.size();
    for (std::uint32_t i = range.begin; i < range.end; ++i) {
      THRESHER_ASSIGN_OR_RETURN(const auto example, source_.At(first + i));
      part.example_tokens += example.LossTokens();
      if (mine) own[leaf - begin]->examples.push_back(SequenceOf(example, first + i));
    }
  }
  return Status::Ok();
}

}  // namespace thresher::learner
