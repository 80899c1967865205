#include "learner/strict_ops.h"

#include "kernels/cpu/fpenv.h"

namespace thresher::learner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

class LogProbs : public Function<LogProbs> {
 public:
  static torch::Tensor forward(AutogradContext* saved, const torch::Tensor& anchor,
                               std::int64_t address) {
    auto& context = *reinterpret_cast<StrictContext*>(address);
    saved->saved_data["strict"] = address;
    kernels::PinFpEnv();
    const auto rows = static_cast<std::int64_t>(context.rows.size());
    auto result = context.pass->LogProbs(context.rows, context.recompute);
    if (!result.ok()) {
      context.status = result.status();
      context.result.entropy.assign(context.rows.size(), 0.0f);
      return torch::zeros({rows}, torch::kFloat32);
    }
    context.result = std::move(result).value();
    torch::Tensor out = torch::empty({rows}, torch::kFloat32);
    std::copy(context.result.logprob.begin(), context.result.logprob.end(),
              out.mutable_data_ptr<float>());
    return out;
  }

  static tensor_list backward(AutogradContext* saved, tensor_list gradients) {
    auto& context = *reinterpret_cast<StrictContext*>(saved->saved_data["strict"].toInt());
    kernels::PinFpEnv();
    const torch::Tensor dlogprob = gradients[0].contiguous();
    if (context.status.ok()) {
      context.status = context.pass->Backward(
          {dlogprob.const_data_ptr<float>(), static_cast<std::size_t>(dlogprob.numel())}, {});
    }
    return {torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor StrictLogProbs(StrictContext& context, const torch::Tensor& anchor) {
  return LogProbs::apply(anchor,
                         static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(&context)));
}

}  // namespace thresher::learner
