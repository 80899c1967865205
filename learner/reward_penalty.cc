#include "learner/reward_penalty.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "learner/gather.h"
#include "learner/objective_config.h"

namespace thresher::learner {

RewardPenalty::RewardPenalty(const model::RunContext& run, WorkerPool& workers)
    : config_(run.config), workers_(workers) {
  while (computers_.size() < static_cast<std::size_t>(workers.threads())) {
    computers_.emplace_back(model::MakeCpuTrainingPass(run.model));
  }
}

std::vector<double> PenaltyOf(const ObjectiveConfig& objective, const TrainSequence& sequence,
                              std::span<const float> reference) {
  const ObjectiveSpec::Kl estimator = KlEstimatorOf(objective);
  std::vector<double> penalty(sequence.in_loss.size(), 0.0);
  for (std::size_t i = 0; i < penalty.size(); ++i) {
    if (!sequence.in_loss[i]) continue;
    const double d =
        static_cast<double>(sequence.behaviour_logprob[i]) - static_cast<double>(reference[i]);
    penalty[i] = objective.kl * KlPenaltyOf(estimator, d).value;
  }
  return penalty;
}

Status RewardPenalty::Apply(comm::Communicator& comm,
                            std::shared_ptr<const model::PackedModel> reference, StepBatch& batch) {
  const std::vector<LeafWork*> leaves = OwnLeaves(batch);
  LeafOptions options;
  options.micro_batch_tokens = static_cast<std::size_t>(config_.learner.micro_batch_tokens);
  std::vector<Result<std::vector<std::vector<float>>>> logprobs(leaves.size(),
                                                                std::vector<std::vector<float>>());
  workers_.Run(std::ssize(leaves), [&](int worker, std::int64_t leaf) {
    const auto index = static_cast<std::size_t>(leaf);
    logprobs[index] =
        computers_[static_cast<std::size_t>(worker)].LogProbs(reference, options, *leaves[index]);
  });
  BlobWriter writer;
  for (std::size_t l = 0; l < leaves.size(); ++l) {
    THRESHER_RETURN_IF_ERROR(logprobs[l].status());
    for (std::size_t s = 0; s < leaves[l]->sequences.size(); ++s) {
      TrainSequence& sequence = leaves[l]->sequences[s];
      sequence.values.reference = std::move((*logprobs[l])[s]);
      sequence.values.penalty = PenaltyOf(config_.objective, sequence, sequence.values.reference);
      const auto& penalty = sequence.values.penalty;
      writer.Put(std::accumulate(penalty.begin(), penalty.end(), 0.0));
    }
  }
  THRESHER_ASSIGN_OR_RETURN(const auto blobs, GatherBlobs(comm, writer.Take(), "penalties"));
  std::vector<double> penalties;  // of all ranks' samples, in canonical order
  for (const std::string& blob : blobs) {
    for (BlobReader reader(blob); !reader.done();) penalties.push_back(reader.Get<double>());
  }
  PenaliseSamples(config_, penalties, batch);
  return Status::Ok();
}

}  // namespace thresher::learner
