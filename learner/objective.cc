#include "learner/objective.h"

#include "common/base/check.h"

namespace thresher::learner {

ObjectiveOutputs Objective(const LossSpec& spec, const ObjectiveInputs& inputs) {
  ObjectiveOutputs out;
  if (spec.kind == LossSpec::Kind::kSupervised) {
    out.loss = (inputs.weight * -inputs.logprob).sum();
    return out;
  }
  torch::Tensor ratio = (inputs.logprob - inputs.behaviour).exp();
  torch::Tensor plain = ratio * inputs.advantage;
  torch::Tensor bounded =
      ratio.clamp(1.0 - spec.clip_low, 1.0 + spec.clip_high) * inputs.advantage;
  torch::Tensor per_token = -torch::minimum(plain, bounded);
  if (spec.kl > 0) {
    THRESHER_CHECK(inputs.reference.defined(), "a KL penalty without a reference policy");
    torch::Tensor q = inputs.reference - inputs.logprob;
    per_token = per_token + spec.kl * (q.exp() - q - 1.0);
  }
  // A masked token has weight 0; where() keeps an infinite masked ratio out of the sum.
  out.loss = torch::where(inputs.weight > 0, inputs.weight * per_token,
                          torch::zeros_like(per_token))
                 .sum();
  out.ratio = ratio.detach();
  out.clipped = (bounded < plain).detach();
  return out;
}

}  // namespace thresher::learner
