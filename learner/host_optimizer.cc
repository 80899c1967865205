#include "learner/host_optimizer.h"

#include <algorithm>
#include <cstring>
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
      adamw_(options.adamw, model::ParameterList(options.model)) {}

Status HostOptimizer::Restore(std::vector<float> weights, AdamW::State moments) {
  THRESHER_CHECK(weights.size() == model::ParameterCount(options_.model),
                 "weights of another model");
  weights_ = std::move(weights);
  published_.clear();
  adamw_.Restore(std::move(moments));
  return Status::Ok();
}

Status HostOptimizer::ResetMoments() {
  adamw_.Restore(AdamW::Fresh(weights_.size()));
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
  THRESHER_CHECK(gradient_.size() >= weights_.size() && !gradient_.empty(), "no gradient");
  return {gradient_.data(), weights_.size()};
}

Status HostOptimizer::AddRanks(comm::Communicator& comm) {
  return comm::TreeAllReduce(comm, flat(), "gradient");
}

Result<double> HostOptimizer::Norm() { return BlockedNorm(flat(), &workers_); }

Status HostOptimizer::Step(double learning_rate, double gradient_scale) {
  adamw_.Step(weights_, flat(), learning_rate, gradient_scale, &workers_);
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
  CopyOver(workers_, moments.first_moment, state.optimizer.first_moment);
  CopyOver(workers_, moments.second_moment, state.optimizer.second_moment);
  return Status::Ok();
}

Status HostOptimizer::Lend(TrainState& state) {
  state.weights = std::move(weights_);
  state.optimizer = adamw_.Lend();
  return Status::Ok();
}

void HostOptimizer::TakeBack(TrainState& state) {
  weights_ = std::exchange(state.weights, {});
  adamw_.Restore(std::exchange(state.optimizer, {}));
}

}  // namespace thresher::learner
