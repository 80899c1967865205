#include "learner/host_optimizer.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "common/base/check.h"
#include "learner/gradient.h"

namespace thresher::learner {
namespace {

// One thread alone does not fill the memory's bandwidth.
void CopyOver(WorkerPool& workers, const std::vector<float>& from, std::vector<float>& to) {
  constexpr std::size_t kPiece = 1 << 18;
  to.resize(from.size());
  workers.Run(static_cast<std::int64_t>((from.size() + kPiece - 1) / kPiece),
              [&](int, std::int64_t piece) {
                const std::size_t begin = static_cast<std::size_t>(piece) * kPiece;
                const std::size_t count = std::min(kPiece, from.size() - begin);
                std::memcpy(to.data() + begin, from.data() + begin, count * sizeof(float));
              });
}

}  // namespace

HostOptimizer::HostOptimizer(const OptimizerOptions& options, WorkerPool& workers,
                             std::unique_ptr<model::TrainingPass> device)
    : options_(options),
      workers_(workers),
      leaves_(options.model, options.valid_vocab, workers, std::move(device)),
      adamw_(options.adamw, options.trained.List(options.model)) {
  if (options.trained.frozen.empty()) return;
  const auto list = options.trained.List(options.model);
  leaves_.Project({adamw_.count(),
                   [list](std::span<const float> gradient, std::span<float> out) {
                     for (const model::ParameterInfo& info : list) {
                       const auto own = gradient.subspan(info.offset, info.count);
                       std::ranges::copy(own, out.begin());
                       out = out.subspan(info.count);
                     }
                   },
                   model::NeedsOf(options.model, list)});
}

Status HostOptimizer::Adapt(AdapterState adapters) {
  THRESHER_CHECK(options_.trained.lora && adapters_.empty() && gradient_.empty(),
                 "adapters that have begun, or that nobody asked for");
  const model::Lora& lora = *options_.trained.lora;
  if (adapters.empty()) adapters = {lora.BaseOf(weights_), lora.Initial(options_.seed)};
  THRESHER_CHECK(
      adapters.base.size() == lora.base_count() && adapters.weights.size() == lora.count(),
      "adapters of another model");
  adapters_ = std::move(adapters);
  adamw_ = AdamW(options_.adamw, lora.parameters());
  leaves_.Project({lora.count(),
                   [this, &lora](std::span<const float> gradient, std::span<float> out) {
                     lora.Project(adapters_.weights, gradient, out);
                   },
                   model::NeedsOf(options_.model, lora.targets())});
  return Status::Ok();
}

void HostOptimizer::Merge() {
  const model::Lora& lora = *options_.trained.lora;
  workers_.Run(std::ssize(lora.targets()), [&](int, std::int64_t index) {
    lora.Merge(static_cast<std::size_t>(index), adapters_.base, adapters_.weights, weights_);
  });
}

Status HostOptimizer::Restore(std::vector<float> weights, AdamW::State moments) {
  THRESHER_CHECK(weights.size() == model::ParameterCount(options_.model),
                 "weights of another model");
  weights_ = std::move(weights);
  published_.clear();
  adamw_.Restore(std::move(moments));
  return Status::Ok();
}

Status HostOptimizer::ResetMoments() {
  adamw_.Restore(AdamW::Fresh(adamw_.count()));
  return Status::Ok();
}

Status HostOptimizer::Compute(std::shared_ptr<const model::PackedModel> reference,
                              std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                              const LeafOptions& options, LeafStats& stats) {
  THRESHER_CHECK(gradient_.empty(), "a step within a step");
  std::string().swap(published_);
  THRESHER_ASSIGN_OR_RETURN(
      gradient_, leaves_.Compute(weights_, std::move(reference), leaves, spec, options, stats));
  return Status::Ok();
}

std::span<float> HostOptimizer::flat() {
  THRESHER_CHECK(gradient_.size() >= adamw_.count() && !gradient_.empty(), "no gradient");
  return {gradient_.data(), adamw_.count()};
}

Status HostOptimizer::AddRanks(comm::Communicator& comm) {
  return comm::TreeAllReduce(comm, flat(), "gradient");
}

Result<double> HostOptimizer::Norm() { return BlockedNorm(flat(), &workers_); }

Status HostOptimizer::Step(double learning_rate, double gradient_scale) {
  adamw_.Step(trained(), flat(), learning_rate, gradient_scale, &workers_);
  if (!adapters_.empty()) Merge();
  return Skip();
}

Status HostOptimizer::Skip() {
  leaves_.Recycle(std::exchange(gradient_, {}));
  return Status::Ok();
}

Result<bool> HostOptimizer::ReleaseDevice() {
  leaves_.ReleaseDevice();
  return true;
}

Result<std::span<const std::byte>> HostOptimizer::Published() {
  if (options_.model.dtype == kernels::WeightType::kF32) return std::as_bytes(std::span(weights_));
  if (published_.empty()) published_ = model::PublishedElements(options_.model, weights_);
  return std::as_bytes(std::span(published_));
}

Result<std::span<const float>> HostOptimizer::Weights(std::vector<float>&) {
  return std::span<const float>(weights_);
}

Status HostOptimizer::Copy(TrainState& state) {
  const AdamW::State& moments = adamw_.state();
  state.optimizer.steps = moments.steps;
  CopyOver(workers_, weights_, state.weights);
  CopyOver(workers_, adapters_.base, state.adapters.base);
  CopyOver(workers_, adapters_.weights, state.adapters.weights);
  CopyOver(workers_, moments.first_moment, state.optimizer.first_moment);
  CopyOver(workers_, moments.second_moment, state.optimizer.second_moment);
  return Status::Ok();
}

Status HostOptimizer::Lend(TrainState& state) {
  state.weights = std::move(weights_);
  state.adapters = std::exchange(adapters_, {});
  state.optimizer = adamw_.Lend();
  return Status::Ok();
}

void HostOptimizer::TakeBack(TrainState& state) {
  weights_ = std::exchange(state.weights, {});
  adapters_ = std::exchange(state.adapters, {});
  adamw_.Restore(std::exchange(state.optimizer, {}));
}

}  // namespace thresher::learner
