#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <span>
#include <vector>

#include "common/model/forward.h"

namespace thresher::learner {

// What the strict functions share for one micro-batch: packed rows of whole sequences, the paged
// cache they are computed over, the tape, and the leaf's gradient accumulator. Lives until the
// backward pass has run, as does what it borrows.
struct StrictContext {
  const model::PackedModel* policy = nullptr;
  model::Workspace* workspace = nullptr;
  model::RowBatch rows;
  std::vector<std::int32_t> target;
  std::vector<float> temperature;
  model::KvCache* cache = nullptr;
  model::Tape* tape = nullptr;
  std::vector<float> lse;
  std::vector<float> entropy;         // nats, filled by LogProbs
  std::span<float> gradient;          // GradientSize floats
};

// The engine's forward as a differentiable function: returns hidden states, float32 [T, D]. Gradients of the
// weights are added to `context.gradient`; `anchor` is any float tensor that requires a gradient and
// ties the result into the graph (it receives none).
torch::Tensor StrictTrunk(StrictContext& context, const torch::Tensor& anchor);

// log-softmax(head(hidden) / temperature)[target], float32 [T].
torch::Tensor StrictLogProbs(StrictContext& context, const torch::Tensor& hidden);

}  // namespace thresher::learner
