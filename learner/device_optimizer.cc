#include "learner/device_optimizer.h"

#include <utility>

#include "common/base/check.h"
#include "learner/gradient.h"

namespace thresher::learner {
namespace {

Status WithRemedy(const Status& status) {
  if (status.code() != StatusCode::kResourceExhausted) return status;
  return ResourceExhausted(
      "learner.device: weights, moments and gradients do not fit the GPU (" + status.message() +
      "); learner.offload_optimizer: true keeps all but the weights in the machine's memory");
}

}  // namespace

DeviceOptimizer::DeviceOptimizer(const OptimizerOptions& options, model::TrainingDevice device)
    : options_(options),
      count_(model::ParameterCount(options.model)),
      parameters_(std::move(device.parameters)),
      computer_(std::move(device.pass)) {
  THRESHER_CHECK(parameters_ != nullptr, "no parameters on a device");
}

Status DeviceOptimizer::Restore(std::vector<float> weights, AdamW::State moments) {
  THRESHER_CHECK(weights.size() == count_ && moments.first_moment.size() == count_ &&
                     moments.second_moment.size() == count_,
                 "weights or moments of another model");
  published_.reset();
  steps_ = moments.steps;
  OnHost from{std::move(weights), std::move(moments)};
  on_host_ = options_.shared;
  if (!on_host_) return Upload(from);
  host_ = std::move(from);
  return Status::Ok();
}

// Room for the sum as well: what does not fit is to show before the first step.
Status DeviceOptimizer::Upload(const OnHost& from) {
  const Status status = [&] {
    THRESHER_RETURN_IF_ERROR(
        parameters_->Set(from.weights, from.moments.first_moment, from.moments.second_moment));
    THRESHER_RETURN_IF_ERROR(parameters_->BeginSum(options_.leaves));
    parameters_->DropSum();
    return Status::Ok();
  }();
  return WithRemedy(status);
}

Status DeviceOptimizer::Download(std::vector<float>& weights, AdamW::State& moments) const {
  weights.resize(count_);
  moments.first_moment.resize(count_);
  moments.second_moment.resize(count_);
  THRESHER_RETURN_IF_ERROR(parameters_->ReadMasters(weights));
  return parameters_->ReadMoments(moments.first_moment, moments.second_moment);
}

Result<bool> DeviceOptimizer::ReleaseDevice() {
  if (in_step_) return false;
  if (on_host_) return true;
  THRESHER_RETURN_IF_ERROR(Download(host_.weights, host_.moments));
  published_.reset();
  computer_.Release();
  parameters_->Release();
  on_host_ = true;
  return true;
}

Status DeviceOptimizer::ResetMoments() {
  steps_ = 0;
  if (!on_host_) return parameters_->ClearMoments();
  host_.moments.first_moment.assign(count_, 0.0f);
  host_.moments.second_moment.assign(count_, 0.0f);
  return Status::Ok();
}

Status DeviceOptimizer::Compute(std::shared_ptr<const model::PackedModel> reference,
                                std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                                const LeafOptions& options, LeafStats& stats) {
  in_step_ = true;
  if (std::exchange(on_host_, false)) THRESHER_RETURN_IF_ERROR(Upload(host_));
  THRESHER_RETURN_IF_ERROR(WithRemedy(parameters_->BeginSum(leaves.size())));
  std::size_t index = 0;
  for (const LeafWork& leaf : leaves) {
    std::vector<float> head;
    if (options.value != nullptr) head = options.value->pool->Take();
    const auto computed = computer_.Compute(nullptr, reference, leaf, spec, options, {}, head);
    if (!computed.ok()) return WithRemedy(computed.status());
    if (options.value != nullptr) options.value->sum->Add(index, std::move(head));
    ++index;
    stats.Add(*computed);
  }
  return Status::Ok();
}

Status DeviceOptimizer::AddRanks(comm::Communicator& comm) {
  if (comm.size() == 1) return Status::Ok();
  if (comm.reaches_devices()) {
    const auto sum = parameters_->OnDevice();
    if (!sum.ok()) return WithRemedy(sum.status());
    return comm.TreeAllReduceOnDevice(sum->values, sum->scratch, sum->stream, "gradient");
  }
  std::vector<float> sum(count_);
  THRESHER_RETURN_IF_ERROR(parameters_->ReadSum(sum));
  THRESHER_RETURN_IF_ERROR(comm::TreeAllReduce(comm, sum, "gradient"));
  return parameters_->WriteSum(sum);
}

Result<double> DeviceOptimizer::Norm() {
  THRESHER_ASSIGN_OR_RETURN(auto sums, parameters_->SquareSums(kNormBlock));
  return NormOfBlocks(std::move(sums));
}

Status DeviceOptimizer::Step(double learning_rate, double gradient_scale) {
  published_.reset();
  in_step_ = false;
  return parameters_->Step(AdamWFactorsOf(options_.adamw, ++steps_, learning_rate, gradient_scale));
}

Status DeviceOptimizer::Skip() {
  parameters_->DropSum();
  in_step_ = false;
  return Status::Ok();
}

Result<std::span<const std::byte>> DeviceOptimizer::Published() {
  if (published_) return *published_;
  if (!on_host_) {
    THRESHER_ASSIGN_OR_RETURN(published_, parameters_->ReadPublished());
  } else if (options_.model.dtype == kernels::WeightType::kF32) {
    published_ = std::as_bytes(std::span(host_.weights));
  } else {
    narrowed_ = model::PublishedElements(options_.model, host_.weights);
    published_ = std::as_bytes(std::span(narrowed_));
  }
  return *published_;
}

Result<std::span<const float>> DeviceOptimizer::Weights(std::vector<float>& room) {
  if (on_host_) return std::span<const float>(host_.weights);
  room.resize(count_);
  THRESHER_RETURN_IF_ERROR(parameters_->ReadMasters(room));
  return std::span<const float>(room);
}

Status DeviceOptimizer::Copy(TrainState& state) {
  if (on_host_) {
    state.weights = host_.weights;
    state.optimizer = host_.moments;
  } else {
    THRESHER_RETURN_IF_ERROR(Download(state.weights, state.optimizer));
  }
  state.optimizer.steps = steps_;
  return Status::Ok();
}

Status DeviceOptimizer::Lend(TrainState& state) {
  if (!on_host_) return Copy(state);
  published_.reset();
  state.weights = std::move(host_.weights);
  state.optimizer = std::move(host_.moments);
  state.optimizer.steps = steps_;
  return Status::Ok();
}

void DeviceOptimizer::TakeBack(TrainState& state) {
  OnHost back{std::exchange(state.weights, {}), std::exchange(state.optimizer, {})};
  if (on_host_) host_ = std::move(back);
}

}  // namespace thresher::learner
