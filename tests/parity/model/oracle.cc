#include "tests/parity/model/oracle.h"

#include <cmath>
#include <limits>

#include "common/model/weights.h"

namespace thresher::model {
namespace {

using torch::Tensor;

constexpr double kUnit = 0x1p-24;  // unit round-off of float32

Tensor RandomSigns(const Tensor& like) {
  return torch::randint(0, 2, like.sizes()).to(torch::kFloat64) * 2 - 1;
}

// As Transformers writes it (modeling_rope_utils.py), in float32.
Tensor Scaled(const Tensor& frequency, const RopeScaling& scaling) {
  if (scaling.kind == RopeScaling::Kind::kDefault) return frequency;
  const Tensor stretched = frequency / scaling.factor;
  if (scaling.kind == RopeScaling::Kind::kLinear) return stretched;
  const double context = scaling.original_context;
  const Tensor wavelength = 2 * M_PI / frequency;
  const Tensor smooth = (context / wavelength - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  const Tensor between = (1 - smooth) * stretched + smooth * frequency;
  const Tensor result =
      torch::where(wavelength > context / scaling.low_freq_factor, stretched, between);
  return torch::where(wavelength < context / scaling.high_freq_factor, frequency, result);
}

}  // namespace

Oracle::Oracle(const ModelConfig& config, std::span<const float> flat, bool noise)
    : config_(config), noise_(noise) {
  for (const ParameterInfo& info : ParameterList(config)) {
    Tensor values = torch::empty(info.shape, torch::kFloat32);
    std::copy_n(flat.data() + info.offset, info.count, values.data_ptr<float>());
    parameters_[info.name] = values.to(torch::kFloat64).requires_grad_(true);
  }
}

Tensor Oracle::Rounded(const Tensor& y, double operations) const {
  return noise_ ? y * (1 + kUnit * operations * RandomSigns(y)) : y;
}

// x [.., K] w^T for w [.., N, K].
Tensor Oracle::Product(const Tensor& x, const Tensor& w) const {
  const Tensor y = torch::matmul(x, w.transpose(-2, -1));
  if (!noise_) return y;
  const Tensor size = torch::matmul(x.abs(), w.abs().transpose(-2, -1)).detach();
  return y + kUnit * size * RandomSigns(y);
}

Tensor Oracle::Linear(const Tensor& x, const std::string& name) const {
  const Tensor y = Product(x, At(name + ".weight"));
  const auto bias = parameters_.find(name + ".bias");
  return bias == parameters_.end() ? y : Rounded(y + bias->second);
}

Tensor Oracle::Norm(const Tensor& x, const std::string& name) const {
  const double eps = static_cast<float>(config_.norm_eps);
  const Tensor scale = torch::rsqrt(x.pow(2).mean(-1, /*keepdim=*/true) + eps);
  return Rounded(x * Rounded(scale, 4) * At(name + ".weight"), 2);
}

// Rows are positions 0 .. T-1; x [heads, T, Dh], element i paired with element i + Dh/2. The angle
// is a float32 product of a float32 frequency, as Hugging Face has it: part of the model's
// definition.
Tensor Oracle::Rotate(const Tensor& x) const {
  const std::int64_t half = config_.head_dim / 2;
  const Tensor exponent = torch::arange(half, torch::kFloat32) / static_cast<double>(half);
  const Tensor frequency =
      Scaled(1.0 / torch::pow(config_.rope_theta, exponent), config_.rope_scaling);
  const Tensor angle = torch::outer(torch::arange(x.size(1), torch::kFloat32), frequency);
  const Tensor cos = Rounded(angle.to(torch::kFloat64).cos());
  const Tensor sin = Rounded(angle.to(torch::kFloat64).sin());
  const Tensor first = x.slice(-1, 0, half), second = x.slice(-1, half);
  return torch::cat({Rounded(Rounded(first * cos) - Rounded(second * sin)),
                     Rounded(Rounded(second * cos) + Rounded(first * sin))},
                    -1);
}

Tensor Oracle::Attend(const Tensor& normed, const std::string& prefix) const {
  const std::int64_t rows = normed.size(0);
  const auto split = [&](const std::string& name, std::int64_t heads) {
    const Tensor x = Linear(normed, prefix + name + "_proj").view({rows, heads, config_.head_dim});
    const std::string norm = prefix + name + "_norm";
    const bool normed_heads = parameters_.contains(norm + ".weight");
    return (normed_heads ? Norm(x, norm) : x).transpose(0, 1);
  };
  const std::int64_t group = config_.heads / config_.kv_heads;
  const Tensor q = Rotate(split("q", config_.heads));
  const Tensor k = Rotate(split("k", config_.kv_heads)).repeat_interleave(group, 0);
  const Tensor v = split("v", config_.kv_heads).repeat_interleave(group, 0);
  const Tensor scores = Rounded(Product(q, k) / std::sqrt(static_cast<double>(config_.head_dim)));
  const Tensor future = torch::ones({rows, rows}, torch::kBool).triu(1);
  const double none = -std::numeric_limits<double>::infinity();
  // exp errs by 2 units, and by those of its argument; the quotient by two more.
  const Tensor weights = Rounded(torch::softmax(scores.masked_fill(future, none), -1), 4);
  const Tensor mixed = Product(weights, v.transpose(-2, -1));
  return Linear(mixed.transpose(0, 1).reshape({rows, config_.q_width()}), prefix + "o_proj");
}

Tensor Oracle::Logits(const Tensor& tokens) const {
  Tensor x = torch::embedding(At("model.embed_tokens.weight"), tokens);
  for (int i = 0; i < config_.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    x = Rounded(x + Attend(Norm(x, layer + "input_layernorm"), layer + "self_attn."));
    const Tensor normed = Norm(x, layer + "post_attention_layernorm");
    const Tensor gate = Linear(normed, layer + "mlp.gate_proj");
    const Tensor up = Linear(normed, layer + "mlp.up_proj");
    const Tensor activated = Rounded(torch::silu(gate) * up, 5);
    x = Rounded(x + Linear(activated, layer + "mlp.down_proj"));
  }
  const Tensor hidden = Norm(x, "model.norm");
  return Product(hidden,
                 At(config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"));
}

}  // namespace thresher::model
