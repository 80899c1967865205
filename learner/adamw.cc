#include "learner/adamw.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace thresher::learner {
namespace {

constexpr std::size_t kPart = 65536;  // elements that a thread takes at a time

std::size_t EndOf(const std::vector<model::ParameterInfo>& parameters) {
  return parameters.empty() ? 0 : parameters.back().offset + parameters.back().count;
}

}  // namespace

AdamW::AdamW(const OptimizerConfig& options, const std::vector<model::ParameterInfo>& parameters,
             const std::optional<std::vector<Piece>>& shard)
    : options_(options), parameters_(parameters) {
  for (const auto& parameter : parameters) count_ += parameter.count;
  for (const Piece& piece : shard.value_or(std::vector<Piece>{{0, count_}})) {
    for (std::size_t begin = piece.begin; begin < piece.end(); begin += kPart) {
      const std::size_t count = std::min(kPart, piece.end() - begin);
      parts_.push_back({{begin, count}, owned_});
      owned_ += count;
    }
  }
  state_ = Fresh(owned_);
}

AdamW::State AdamW::Fresh(std::size_t count) {
  return {0, std::vector<float>(count, 0.0f), std::vector<float>(count, 0.0f)};
}

kernels::AdamWFactors AdamWFactorsOf(const OptimizerConfig& options, std::uint64_t step,
                                     double learning_rate, double gradient_scale) {
  const auto steps = static_cast<double>(step);
  kernels::AdamWFactors factors{};
  factors.beta1 = static_cast<float>(options.beta1);
  factors.beta2 = static_cast<float>(options.beta2);
  factors.rest1 = static_cast<float>(1.0 - options.beta1);
  factors.rest2 = static_cast<float>(1.0 - options.beta2);
  factors.step_size = static_cast<float>(learning_rate / (1.0 - std::pow(options.beta1, steps)));
  factors.root_correction =
      static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options.beta2, steps)));
  factors.epsilon = static_cast<float>(options.epsilon);
  factors.scale = static_cast<float>(gradient_scale);
  factors.keep = static_cast<float>(1.0 - learning_rate * options.weight_decay);
  return factors;
}

void AdamW::Step(std::span<float> weights, std::span<const float> gradient, double learning_rate,
                 double gradient_scale, WorkerPool* pool) {
  const kernels::AdamWFactors factors =
      AdamWFactorsOf(options_, ++state_.steps, learning_rate, gradient_scale);
  Run(nullptr, weights, gradient, factors, pool);
}

void AdamW::StepFrom(const Old& old, std::span<float> weights, std::span<const float> gradient,
                     double learning_rate, double gradient_scale, WorkerPool* pool) {
  THRESHER_CHECK(owned_ == count_ && count_ == EndOf(parameters_) && weights.size() == count_ &&
                     old.weights.size() == count_ && old.state.first_moment.size() == count_ &&
                     old.state.second_moment.size() == count_,
                 "AdamW: not all weights");
  state_.steps = old.state.steps + 1;
  const kernels::AdamWFactors factors =
      AdamWFactorsOf(options_, state_.steps, learning_rate, gradient_scale);
  Run(&old, weights, gradient, factors, pool);
}

// A part that was copied is still in the cache when it is stepped.
void AdamW::Run(const Old* old, std::span<float> weights, std::span<const float> gradient,
                const kernels::AdamWFactors& factors, WorkerPool* pool) {
  THRESHER_CHECK(weights.size() >= EndOf(parameters_) && state_.first_moment.size() == owned_ &&
                     state_.second_moment.size() == owned_ && gradient.size() >= count_,
                 "AdamW: sizes differ");
  const auto copy = [](const Piece& at, std::span<const float> from, std::span<float> to) {
    std::ranges::copy(from.subspan(at.begin, at.count), to.subspan(at.begin).begin());
  };
  const auto part = [&](int, std::int64_t index) {
    const Part& mine = parts_[static_cast<std::size_t>(index)];
    if (old != nullptr) {
      copy(mine.at, old->weights, weights);
      copy(mine.at, old->state.first_moment, state_.first_moment);
      copy(mine.at, old->state.second_moment, state_.second_moment);
    }
    StepPart(mine, weights, gradient, factors);
  };
  const auto parts = std::ssize(parts_);
  if (pool != nullptr) return pool->Run(parts, part);
  for (std::int64_t index = 0; index < parts; ++index) part(0, index);
}

void AdamW::StepPart(const Part& mine, std::span<float> weights, std::span<const float> gradient,
                     const kernels::AdamWFactors& factors) {
  const std::size_t first = mine.at.begin, last = mine.at.end();
  std::size_t next = 0;  // where the parameter lies in the gradient
  for (const auto& parameter : parameters_) {
    const std::size_t at = std::exchange(next, next + parameter.count);
    const std::size_t begin = std::max(first, at), end = std::min(last, next);
    if (begin >= end) continue;
    kernels::AdamWFactors own = factors;
    if (!parameter.decay) own.keep = 1.0f;
    kernels::AdamWUpdate(static_cast<std::int64_t>(end - begin), own, gradient.data() + begin,
                         weights.data() + parameter.offset + (begin - at),
                         state_.first_moment.data() + mine.state + (begin - first),
                         state_.second_moment.data() + mine.state + (begin - first));
  }
}

void AdamW::Restore(State state) {
  THRESHER_CHECK(state.first_moment.size() == owned_ && state.second_moment.size() == owned_,
                 "AdamW: restored state has another size");
  state_ = std::move(state);
}

}  // namespace thresher::learner
