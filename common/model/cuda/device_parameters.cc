#include "common/model/cuda/device_parameters.h"

#include <bit>
#include <string>
#include <utility>

#include "common/base/check.h"
#include "common/gpu/device.h"
#include "common/gpu/shared_device.h"
#include "common/model/forward.h"
#include "kernels/cuda/adamw.h"
#include "kernels/cuda/add.h"
#include "kernels/cuda/pack_weights.h"
#include "kernels/cuda/square_sums.h"

namespace thresher::model {

namespace cuda = kernels::cuda;

Result<std::shared_ptr<DeviceParameters>> DeviceParameters::Make(
    const ModelConfig& config, const DeviceParametersOptions& options) {
  THRESHER_RETURN_IF_ERROR(gpu::OpenDevice(options.device).status());
  std::shared_ptr<DeviceParameters> made(new DeviceParameters(config, options));
  THRESHER_ASSIGN_OR_RETURN(made->stream_, gpu::MakeStream());
  return made;
}

DeviceParameters::DeviceParameters(const ModelConfig& config,
                                   const DeviceParametersOptions& options)
    : config_(config),
      options_(options),
      layout_(MakeLayout(config)),
      parameters_(ParameterList(config)),
      count_(ParameterCount(config)) {}

DeviceParameters::~DeviceParameters() {
  if (stream_) (void)cudaStreamSynchronize(stream_.get());
}

// ---- masters and moments

Status DeviceParameters::Set(std::span<const float> masters, std::span<const float> first_moment,
                             std::span<const float> second_moment) {
  THRESHER_CHECK(begun_ == 0, "parameters set beside a sum");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_RETURN_IF_ERROR(gpu::AwaitMemory(options_.patience, [this] {
    for (DeviceArray<float>* array : {&masters_, &first_moment_, &second_moment_}) {
      const Status taken = array->Reserve(count_);
      if (taken.ok()) continue;
      masters_ = {}, first_moment_ = {}, second_moment_ = {};
      return taken;
    }
    return Status::Ok();
  }));
  ++version_;
  THRESHER_RETURN_IF_ERROR(Send(masters, masters_));
  THRESHER_RETURN_IF_ERROR(Send(first_moment, first_moment_));
  THRESHER_RETURN_IF_ERROR(Send(second_moment, second_moment_));
  return gpu::Await(stream_, "the parameters");
}

Status DeviceParameters::Send(std::span<const float> from, const DeviceArray<float>& to) {
  THRESHER_CHECK(from.size() == count_ && to.size() == count_, "parameters of another model");
  return gpu::ToStatus(cudaMemcpyAsync(to.data(), from.data(), from.size_bytes(),
                                       cudaMemcpyHostToDevice, stream_.get()),
                       "copy of parameters");
}

Status DeviceParameters::Fetch(const float* from, std::span<float> to) const {
  THRESHER_CHECK(from != nullptr && to.size() == count_, "parameters of another model, or none");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_RETURN_IF_ERROR(gpu::ToStatus(
      cudaMemcpyAsync(to.data(), from, to.size_bytes(), cudaMemcpyDeviceToHost, stream_.get()),
      "copy of parameters"));
  return gpu::Await(stream_, "parameters");
}

Status DeviceParameters::ClearMoments() {
  THRESHER_CHECK(first_moment_.size() == count_, "no moments");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  Launches launch;
  for (const DeviceArray<float>* moment : {&first_moment_, &second_moment_}) {
    launch("clearing of moments",
           cudaMemsetAsync(moment->data(), 0, moment->bytes(), stream_.get()));
  }
  THRESHER_RETURN_IF_ERROR(launch.status());
  return gpu::Await(stream_, "clearing of moments");
}

Status DeviceParameters::ReadMasters(std::span<float> masters) const {
  return Fetch(masters_.data(), masters);
}

Status DeviceParameters::ReadMoments(std::span<float> first, std::span<float> second) const {
  THRESHER_RETURN_IF_ERROR(Fetch(first_moment_.data(), first));
  return Fetch(second_moment_.data(), second);
}

Result<std::span<const std::byte>> DeviceParameters::ReadPublished() {
  THRESHER_CHECK(masters_.size() == count_ && begun_ == 0, "no masters, or a sum beside them");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  const std::size_t bytes = count_ * kernels::WeightBytes(config_.dtype);
  if (published_.bytes() < bytes) {
    THRESHER_ASSIGN_OR_RETURN(published_, gpu::MakePinnedMemory(bytes));
  }
  const void* from = masters_.data();
  Launches launch;
  if (config_.dtype != kernels::WeightType::kF32) {
    // The leaf's room, which is free.
    THRESHER_RETURN_IF_ERROR(
        gpu::AwaitMemory(options_.patience, [this] { return leaf_.Reserve(GradientSize(config_)); }));
    from = leaf_.data();
    launch("rounding of weights",
           cuda::NarrowWeights(stream_.get(), config_.dtype, static_cast<std::int64_t>(count_),
                               masters_.data(), leaf_.data()));
  }
  launch("copy of weights",
         cudaMemcpyAsync(published_.data(), from, bytes, cudaMemcpyDeviceToHost, stream_.get()));
  THRESHER_RETURN_IF_ERROR(launch.status());
  THRESHER_RETURN_IF_ERROR(gpu::Await(stream_, "the weights"));
  return std::span<const std::byte>(published_.as<std::byte>(), bytes);
}

// ---- the sum

Status DeviceParameters::BeginSum(std::size_t leaves) {
  THRESHER_CHECK(begun_ == 0 && masters_.size() == count_,
                 "a sum within a sum, or without masters");
  THRESHER_CHECK(std::has_single_bit(leaves),
                 "leaves must be a power of two, found " + std::to_string(leaves));
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_RETURN_IF_ERROR(gpu::AwaitMemory(options_.patience, [&] {
    waiting_.resize(static_cast<std::size_t>(std::countr_zero(leaves)));
    Status taken = leaf_.Reserve(GradientSize(config_));
    for (DeviceArray<float>& waiting : waiting_) {
      if (taken.ok()) taken = waiting.Reserve(count_);
    }
    if (!taken.ok()) leaf_ = {}, waiting_.clear();
    return taken;
  }));
  begun_ = leaves;
  ended_ = 0;
  return Status::Ok();
}

Result<float*> DeviceParameters::BeginLeaf(cudaStream_t stream) {
  THRESHER_CHECK(ended_ < begun_, "a leaf more than the sum has");
  THRESHER_RETURN_IF_ERROR(gpu::ToStatus(cudaMemsetAsync(leaf_.data(), 0, leaf_.bytes(), stream),
                                         "clearing of a gradient"));
  return leaf_.data();
}

// Leaves come in order, so the sums that wait are those of the binary digits of how many there are:
// a new one is added to the last that waits, that to the one before it, as long as siblings meet.
Status DeviceParameters::EndLeaf(cudaStream_t stream) {
  THRESHER_CHECK(ended_ < begun_, "the end of no leaf");
  Launches launch;
  if (config_.tied_embeddings) {
    launch(
        "gradient of the tied head",
        cuda::Add(stream, std::int64_t{config_.vocab} * config_.width,
                  leaf_.data() + layout_.embedding, leaf_.data() + layout_.head_gradient, false));
  }
  std::size_t waiting = static_cast<std::size_t>(std::popcount(ended_));
  const std::size_t merged = static_cast<std::size_t>(std::countr_one(ended_));
  const float* sum = leaf_.data();
  for (std::size_t i = 0; i < merged; ++i) {
    float* other = waiting_[--waiting].data();
    // a + b and b + a have the same bits.
    launch("sum of gradients",
           cuda::Add(stream, static_cast<std::int64_t>(count_), other, sum, false));
    sum = other;
  }
  if (merged == 0 && !waiting_.empty()) {
    launch("sum of gradients",
           cudaMemcpyAsync(waiting_[waiting].data(), sum, count_ * sizeof(float),
                           cudaMemcpyDeviceToDevice, stream));
  }
  ++ended_;
  return launch.status();
}

Result<ResidentParameters::Sum> DeviceParameters::OnDevice() {
  THRESHER_CHECK(complete(), "a sum without all its leaves");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  const std::size_t half = (count_ + 1) / 2;
  if (waiting_.empty()) {
    THRESHER_RETURN_IF_ERROR(
        gpu::AwaitMemory(options_.patience, [&] { return scratch_.Reserve(half); }));
  }
  float* scratch = waiting_.empty() ? scratch_.data() : leaf_.data();
  return Sum{
      {root().data(), count_}, {scratch, half}, reinterpret_cast<CUstream_st*>(stream_.get())};
}

Status DeviceParameters::ReadSum(std::span<float> sum) const {
  THRESHER_CHECK(complete(), "a sum without all its leaves");
  return Fetch(root().data(), sum);
}

Status DeviceParameters::WriteSum(std::span<const float> sum) {
  THRESHER_CHECK(complete() && sum.size() == count_, "a sum without leaves, or of another model");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cudaMemcpyAsync(root().data(), sum.data(), sum.size_bytes(),
                                    cudaMemcpyHostToDevice, stream_.get()),
                    "copy of a gradient"));
  return gpu::Await(stream_, "copy of a gradient");
}

Result<std::vector<double>> DeviceParameters::SquareSums(std::size_t block) {
  THRESHER_CHECK(complete(), "a sum without all its leaves");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  std::vector<double> sums((count_ + block - 1) / block);
  THRESHER_RETURN_IF_ERROR(squares_.Reserve(sums.size()));
  Launches launch;
  launch("norm of a gradient",
         cuda::SquareSums(stream_.get(), static_cast<std::int64_t>(count_),
                          static_cast<std::int64_t>(block), root().data(), squares_.data()));
  launch("norm of a gradient",
         cudaMemcpyAsync(sums.data(), squares_.data(), sums.size() * sizeof(double),
                         cudaMemcpyDeviceToHost, stream_.get()));
  THRESHER_RETURN_IF_ERROR(launch.status());
  THRESHER_RETURN_IF_ERROR(gpu::Await(stream_, "the norm of a gradient"));
  return sums;
}

Status DeviceParameters::Step(const kernels::AdamWFactors& factors) {
  THRESHER_CHECK(complete(), "a sum without all its leaves");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  const float* gradient = root().data();
  Launches launch;
  // Neighbours that decay alike are one launch.
  for (std::size_t first = 0; first < parameters_.size();) {
    std::size_t last = first, count = 0;
    while (last < parameters_.size() && parameters_[last].decay == parameters_[first].decay) {
      count += parameters_[last++].count;
    }
    kernels::AdamWFactors own = factors;
    if (!parameters_[first].decay) own.keep = 1.0f;
    const std::size_t at = parameters_[first].offset;
    launch("AdamW", cuda::AdamWUpdate(stream_.get(), static_cast<std::int64_t>(count), own,
                                      gradient + at, masters_.data() + at,
                                      first_moment_.data() + at, second_moment_.data() + at));
    first = last;
  }
  THRESHER_RETURN_IF_ERROR(launch.status());
  THRESHER_RETURN_IF_ERROR(gpu::Await(stream_, "a step of the optimiser"));
  begun_ = 0;
  ++version_;
  return Status::Ok();
}

void DeviceParameters::Release() {
  THRESHER_CHECK(begun_ == 0, "parameters given back beside a sum");
  (void)gpu::UseDevice(options_.device);
  (void)cudaStreamSynchronize(stream_.get());
  masters_ = {}, first_moment_ = {}, second_moment_ = {};
  leaf_ = {}, scratch_ = {};
  squares_ = {};
  waiting_.clear();
}

}  // namespace thresher::model
