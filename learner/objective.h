#pragma once

#include <torch/torch.h>

#include "learner/leaf.h"

namespace thresher::learner {

// Per-token inputs of the objective, float32 [T] each, over the rows of a micro-batch.
struct ObjectiveInputs {
  torch::Tensor logprob;      // of the policy being trained; carries the gradient
  torch::Tensor behaviour;    // recorded at sampling
  torch::Tensor reference;    // of the reference policy; undefined when spec.kl == 0
  torch::Tensor advantage;
  torch::Tensor weight;       // loss mask / denominator: what each token counts for
};
struct ObjectiveOutputs {
  torch::Tensor loss;         // scalar
  torch::Tensor ratio;        // detached [T]; 1 where the weight is 0
  torch::Tensor clipped;      // detached bool [T]: the clipped branch was the smaller one
};

// Supervised: sum_t weight_t * -logprob_t.
// Policy gradient: with r = exp(logprob - behaviour),
//   sum_t weight_t * ( -min(r A, clamp(r, 1 - clip_low, 1 + clip_high) A) + kl * k3 ),
//   k3 = exp(q) - q - 1, q = reference - logprob.
// Sources: PPO, Schulman et al. 2017, arXiv:1707.06347; separate bounds: DAPO, Yu et al. 2025,
// arXiv:2503.14476; k3: Schulman 2020, "Approximating KL divergence".
ObjectiveOutputs Objective(const LossSpec& spec, const ObjectiveInputs& inputs);

}  // namespace thresher::learner
