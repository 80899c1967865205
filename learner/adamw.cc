#include "learner/adamw.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace thresher::learner {
namespace {

constexpr std::size_t kPart = 65536;  // elements that a thread takes at a time

}  // namespace

AdamW::AdamW(const OptimizerConfig& options, const std::vector<model::ParameterInfo>& parameters)
    : options_(options), parameters_(parameters) {
  std::size_t count = 0;
  for (const auto& parameter : parameters) count += parameter.count;
  state_.first_moment.assign(count, 0.0f);
  state_.second_moment.assign(count, 0.0f);
}

void AdamW::Update(const Factors& factors, std::size_t begin, std::size_t end, float* weights,
                   const float* gradient) {
  const Factors f = factors;
  float* m = state_.first_moment.data();
  float* v = state_.second_moment.data();
  for (std::size_t i = begin; i < end; ++i) {
    float g = gradient[i] * f.scale;
    m[i] = f.beta1 * m[i] + f.rest1 * g;
    v[i] = f.beta2 * v[i] + f.rest2 * (g * g);
    float denominator = std::sqrt(v[i]) * f.root_correction + f.epsilon;
    weights[i] = weights[i] * f.keep - f.step_size * (m[i] / denominator);
  }
}

void AdamW::Step(std::span<float> weights, std::span<const float> gradient, double learning_rate,
                 double gradient_scale, WorkerPool* pool) {
  THRESHER_CHECK(weights.size() == state_.first_moment.size() && gradient.size() >= weights.size(),
                 "AdamW: sizes differ");
  ++state_.steps;
  const double steps = static_cast<double>(state_.steps);
  Factors factors{};
  factors.beta1 = static_cast<float>(options_.beta1);
  factors.beta2 = static_cast<float>(options_.beta2);
  factors.rest1 = static_cast<float>(1.0 - options_.beta1);
  factors.rest2 = static_cast<float>(1.0 - options_.beta2);
  factors.step_size = static_cast<float>(learning_rate / (1.0 - std::pow(options_.beta1, steps)));
  factors.root_correction =
      static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options_.beta2, steps)));
  factors.epsilon = static_cast<float>(options_.epsilon);
  factors.scale = static_cast<float>(gradient_scale);
  const auto decayed = static_cast<float>(1.0 - learning_rate * options_.weight_decay);
  const auto part = [&](int, std::int64_t index) {
    const std::size_t first = static_cast<std::size_t>(index) * kPart, last = first + kPart;
    for (const auto& parameter : parameters_) {
      const std::size_t begin = std::max(first, parameter.offset);
      const std::size_t end = std::min(last, parameter.offset + parameter.count);
      if (begin >= end) continue;
      Factors own = factors;
      own.keep = parameter.decay ? decayed : 1.0f;
      Update(own, begin, end, weights.data(), gradient.data());
    }
  };
  const auto parts = static_cast<std::int64_t>((weights.size() + kPart - 1) / kPart);
  if (pool != nullptr) return pool->Run(parts, part);
  for (std::int64_t index = 0; index < parts; ++index) part(0, index);
}

void AdamW::Restore(State state) {
  THRESHER_CHECK(state.first_moment.size() == state_.first_moment.size() &&
                     state.second_moment.size() == state_.second_moment.size(),
                 "AdamW: restored state has another size");
  state_ = std::move(state);
}

}  // namespace thresher::learner
