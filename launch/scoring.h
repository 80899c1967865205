#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/model/forward.h"
#include "common/model/training_pass.h"

namespace thresher::launch {

// Log-probabilities of given tokens: the learner's forward, on the CPU without a tape. Several
// sequences are packed into one pass; by row purity no bit depends on which.
class Scorer {
 public:
  // A pass takes about `pass_tokens` tokens (a longer sequence has one of its own). `pool` is
  // borrowed; null: the calling thread does it all.
  Scorer(std::shared_ptr<const model::PackedModel> weights, WorkerPool* pool,
         std::size_t pass_tokens = 2048);
  // By a pass of a device, which takes no more of it than that needs.
  Scorer(std::shared_ptr<const model::PackedModel> weights,
         std::unique_ptr<model::TrainingPass> device, std::size_t pass_tokens = 2048);

  // Whether a sequence can be scored. Errors: kInvalidArgument (empty, an id that is none of the
  // model's), kOutOfRange (longer than the context).
  Status Check(std::span<const std::int32_t> tokens) const;

  // Per sequence, log P(token i | tokens before it) at `temperature` (0 counts as 1), natural log,
  // for i from 1: one fewer than it has tokens. All must have passed Check. Errors: the device's.
  Result<std::vector<std::vector<float>>> Score(
      std::span<const std::vector<std::int32_t>> sequences, float temperature = 1.0f);

 private:
  Status ScorePass(std::span<const std::vector<std::int32_t>> sequences, float temperature,
                   std::vector<std::vector<float>>& out);
  std::vector<float> OnCpu(std::span<const std::vector<std::int32_t>> sequences, float temperature);

  std::shared_ptr<const model::PackedModel> weights_;
  std::size_t pass_tokens_;
  model::WorkspacePtr workspace_;
  std::unique_ptr<model::KvCache> cache_;        // grows with the passes
  std::unique_ptr<model::TrainingPass> device_;  // null: the CPU
};

}  // namespace thresher::launch
