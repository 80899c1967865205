#pragma once

#include <torch/torch.h>

#include "common/model/training_pass.h"

namespace thresher::learner {

// What the strict function shares for one micro-batch. Lives until the backward pass has run, as
// does what it borrows.
struct StrictContext {
  model::TrainingPass* pass = nullptr;  // within a leaf
  model::TrainRows rows;
  bool recompute = false;
  model::LogProbResult result;  // filled by StrictLogProbs
  Status status;                // the first error of the pass, whose values are then meaningless
};

// The engine's forward as a differentiable function: log-softmax(logits / temperature)[target],
// float32 [T]. Gradients of the weights go to the leaf's accumulator; `anchor` is any float tensor
// that requires a gradient and ties the result into the graph (it receives none).
torch::Tensor StrictLogProbs(StrictContext& context, const torch::Tensor& anchor);

}  // namespace thresher::learner
