#include "learner/objective.h"

#include "common/base/check.h"

namespace thresher::learner {

ObjectiveOutputs Objective(const LossSpec& spec, const ObjectiveInputs& inputs) {
  ObjectiveOutputs out;
  torch::Tensor counts = inputs.weight > 0;
  torch::Tensor zero = torch::zeros_like(inputs.weight);
  // A masked token takes no part from here on: behind a mask of the result alone, the gradient of
  // an overflowing exp would still be 0 x infinity.
  torch::Tensor logprob = torch::where(counts, inputs.logprob, zero);
  if (spec.kind == LossSpec::Kind::kSupervised) {
    out.loss = (inputs.weight * -logprob).sum();
    return out;
  }
  torch::Tensor ratio = (logprob - torch::where(counts, inputs.behaviour, zero)).exp();
  torch::Tensor plain = ratio * inputs.advantage;
  torch::Tensor bounded =
      ratio.clamp(1.0 - spec.clip_low, 1.0 + spec.clip_high) * inputs.advantage;
  torch::Tensor per_token = -torch::minimum(plain, bounded);
  if (spec.kl > 0) {
    THRESHER_CHECK(inputs.reference.defined(), "a KL penalty without a reference policy");
    torch::Tensor q = torch::where(counts, inputs.reference, zero) - logprob;
    per_token = per_token + spec.kl * (q.exp() - q - 1.0);
  }
  out.loss = (inputs.weight * per_token).sum();
  out.ratio = ratio.detach();
  out.clipped = (bounded < plain).detach();
  return out;
}

}  // namespace thresher::learner
