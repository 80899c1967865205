#include "learner/adamw.h"

#include <cmath>

#include "common/base/check.h"

namespace thresher::learner {

AdamW::AdamW(const OptimizerConfig& options, const std::vector<model::ParameterInfo>& parameters)
    : options_(options), parameters_(parameters) {
  std::size_t count = 0;
  for (const auto& parameter : parameters) count += parameter.count;
  state_.first_moment.assign(count, 0.0f);
  state_.second_moment.assign(count, 0.0f);
}

void AdamW::Step(std::span<float> weights, std::span<const float> gradient, double learning_rate,
                 double gradient_scale) {
  THRESHER_CHECK(weights.size() == state_.first_moment.size() && gradient.size() >= weights.size(),
                 "AdamW: sizes differ");
  ++state_.steps;
  const double steps = static_cast<double>(state_.steps);
  const float beta1 = static_cast<float>(options_.beta1);
  const float beta2 = static_cast<float>(options_.beta2);
  const float rest1 = static_cast<float>(1.0 - options_.beta1);
  const float rest2 = static_cast<float>(1.0 - options_.beta2);
  const float step_size =
      static_cast<float>(learning_rate / (1.0 - std::pow(options_.beta1, steps)));
  const float root_correction =
      static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options_.beta2, steps)));
  const float epsilon = static_cast<float>(options_.epsilon);
  const float scale = static_cast<float>(gradient_scale);
  float* m = state_.first_moment.data();
  float* v = state_.second_moment.data();
  for (const auto& parameter : parameters_) {
    const float keep =
        parameter.decay ? static_cast<float>(1.0 - learning_rate * options_.weight_decay) : 1.0f;
    for (std::size_t i = parameter.offset; i < parameter.offset + parameter.count; ++i) {
      float g = gradient[i] * scale;
      m[i] = beta1 * m[i] + rest1 * g;
      v[i] = beta2 * v[i] + rest2 * (g * g);
      float denominator = std::sqrt(v[i]) * root_correction + epsilon;
      weights[i] = weights[i] * keep - step_size * (m[i] / denominator);
    }
  }
}

void AdamW::Restore(State state) {
  THRESHER_CHECK(state.first_moment.size() == state_.first_moment.size() &&
                     state.second_moment.size() == state_.second_moment.size(),
                 "AdamW: restored state has another size");
  state_ = std::move(state);
}

}  // namespace thresher::learner
