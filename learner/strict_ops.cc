#include "learner/strict_ops.h"

#include "common/base/check.h"
#include "kernels/cpu/fpenv.h"

namespace thresher::learner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

StrictContext& Saved(AutogradContext* context) {
  return *reinterpret_cast<StrictContext*>(context->saved_data["strict"].toInt());
}

void Save(AutogradContext* context, StrictContext& strict) {
  context->saved_data["strict"] = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(&strict));
}

std::span<const float> AsSpan(const torch::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

std::span<float> AsMutableSpan(torch::Tensor& tensor) {
  return {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

class Trunk : public Function<Trunk> {
 public:
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& anchor,
                               std::int64_t strict_address) {
    auto& strict = *reinterpret_cast<StrictContext*>(strict_address);
    Save(context, strict);
    kernels::PinFpEnv();
    torch::Tensor hidden =
        torch::empty({strict.rows.rows(), strict.policy->config().width}, torch::kFloat32);
    model::Forward(*strict.policy, strict.rows, *strict.cache, *strict.workspace,
                   AsMutableSpan(hidden), strict.tape);
    return hidden;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    StrictContext& strict = Saved(context);
    kernels::PinFpEnv();
    torch::Tensor dhidden = gradients[0].contiguous();
    model::Backward(*strict.policy, strict.rows, *strict.tape, AsSpan(dhidden), *strict.workspace,
                    strict.gradient);
    return {torch::Tensor(), torch::Tensor()};
  }
};

class LogProbs : public Function<LogProbs> {
 public:
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& hidden,
                               std::int64_t strict_address) {
    auto& strict = *reinterpret_cast<StrictContext*>(strict_address);
    Save(context, strict);
    context->save_for_backward({hidden});
    kernels::PinFpEnv();
    model::LogProbResult result = model::LogProb(*strict.policy, AsSpan(hidden), strict.target,
                                                 strict.temperature, *strict.workspace);
    strict.lse = std::move(result.lse);
    strict.entropy = std::move(result.entropy);
    torch::Tensor out = torch::empty({strict.rows.rows()}, torch::kFloat32);
    std::copy(result.logprob.begin(), result.logprob.end(), out.mutable_data_ptr<float>());
    return out;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    StrictContext& strict = Saved(context);
    kernels::PinFpEnv();
    torch::Tensor hidden = context->get_saved_variables()[0];
    torch::Tensor dlogprob = gradients[0].contiguous();
    torch::Tensor dhidden = torch::empty_like(hidden);
    model::LogProbBackward(*strict.policy, AsSpan(hidden), strict.target, strict.temperature,
                           strict.lse, AsSpan(dlogprob), *strict.workspace, AsMutableSpan(dhidden),
                           strict.gradient);
    return {dhidden, torch::Tensor()};
  }
};

std::int64_t Address(StrictContext& context) {
  return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(&context));
}

}  // namespace

torch::Tensor StrictTrunk(StrictContext& context, const torch::Tensor& anchor) {
  return Trunk::apply(anchor, Address(context));
}

torch::Tensor StrictLogProbs(StrictContext& context, const torch::Tensor& hidden) {
  return LogProbs::apply(hidden, Address(context));
}

}  // namespace thresher::learner
