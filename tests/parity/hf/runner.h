#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "common/model/forward.h"

namespace thresher::model {

using Ids = std::vector<std::int32_t>;

// One sequence at a time, as the engine runs it: prefill, then rows of one token.
class Runner {
 public:
  explicit Runner(std::shared_ptr<const PackedModel> model);

  // Rows of logits over the valid ids.
  nlohmann::json LogitRows(const Ids& ids);
  // What follows `ids`, an end token included.
  Ids Greedy(Ids ids, int new_tokens);
  // Gradient of sum_t weights[t] * logprob(ids[t + 1]) by every parameter, in the flat order: one
  // sequence of weights.size() + 1 ids. The model was packed with a backward pass.
  std::vector<float> Gradient(const Ids& ids, const std::vector<float>& weights);

 private:
  // Hidden states of `ids` from position `first` on.
  std::vector<float> Hidden(std::span<const std::int32_t> ids, std::size_t first, Tape* tape);

  std::shared_ptr<const PackedModel> model_;
  KvCache cache_;
  Ids pages_;
  WorkspacePtr workspace_ = NewWorkspace();
};

}  // namespace thresher::model
