#include "common/model/cuda/filtered_draws.h"

#include <algorithm>

namespace thresher::model {
namespace {

namespace cuda = kernels::cuda;

template <class T>
Status SendTo(DeviceArray<T>& to, const std::vector<T>& from, cudaStream_t stream) {
  // Lists grow by a token a step, and growing waits for the device.
  if (from.size() > to.size()) THRESHER_RETURN_IF_ERROR(to.Reserve(2 * from.size()));
  return gpu::ToStatus(cudaMemcpyAsync(to.data(), from.data(), from.size() * sizeof(T),
                                       cudaMemcpyHostToDevice, stream),
                       "copy of sampling parameters");
}

template <class T>
std::int64_t Append(std::span<const T> from, std::vector<T>& to) {
  const auto begin = static_cast<std::int64_t>(to.size());
  to.insert(to.end(), from.begin(), from.end());
  return begin;
}

}  // namespace

void FilteredDraws::Collect(const std::vector<StepDraw>& draws) {
  rows_.clear(), seen_.clear(), bias_ids_.clear(), top_wanted_.clear(), filtered_.clear();
  filters_.clear(), temperatures_.clear(), bias_values_.clear(), uniforms_.clear();
  allowed_.clear();
  slots_.assign(draws.size(), -1);
  top_n_ = 0;
  for (std::size_t i = 0; i < draws.size(); ++i) {
    const RowSampling& sampling = draws[i].sampling;
    if (!NeedsLogits(sampling)) continue;
    slots_[i] = static_cast<std::int32_t>(rows_.size());
    rows_.push_back(static_cast<std::int32_t>(i));
    filtered_.push_back(sampling.Filtered());
    temperatures_.push_back(sampling.temperature);
    uniforms_.push_back(sampling.uniform);
    top_wanted_.push_back(std::min(sampling.top_n, valid_vocab_));
    top_n_ = std::max(top_n_, top_wanted_.back());
    cuda::HeadRowFilter filter;
    filter.temperature = sampling.temperature;
    filter.top_k = sampling.top_k;
    filter.top_p = sampling.top_p;
    filter.min_p = sampling.min_p;
    filter.repetition_penalty = sampling.repetition_penalty;
    filter.seen_count = static_cast<std::int32_t>(sampling.seen.size());
    filter.seen_begin = Append(sampling.seen, seen_);
    filter.bias_count = static_cast<std::int32_t>(sampling.bias_ids.size());
    filter.bias_begin = Append(sampling.bias_ids, bias_ids_);
    Append(sampling.bias_values, bias_values_);
    if (!sampling.allowed.empty()) filter.allowed_begin = Append(sampling.allowed, allowed_);
    filters_.push_back(filter);
  }
}

Status FilteredDraws::Send(cudaStream_t stream) {
  THRESHER_RETURN_IF_ERROR(SendTo(device_rows_, rows_, stream));
  THRESHER_RETURN_IF_ERROR(SendTo(device_slots_, slots_, stream));
  THRESHER_RETURN_IF_ERROR(SendTo(device_seen_, seen_, stream));
  THRESHER_RETURN_IF_ERROR(SendTo(device_bias_ids_, bias_ids_, stream));
  THRESHER_RETURN_IF_ERROR(SendTo(device_bias_values_, bias_values_, stream));
  THRESHER_RETURN_IF_ERROR(SendTo(device_allowed_, allowed_, stream));
  THRESHER_RETURN_IF_ERROR(SendTo(device_filters_, filters_, stream));
  THRESHER_RETURN_IF_ERROR(SendTo(device_temperatures_, temperatures_, stream));
  return SendTo(device_uniforms_, uniforms_, stream);
}

Result<cuda::HeadLogitStore> FilteredDraws::Begin(const std::vector<StepDraw>& draws,
                                                  std::int32_t valid_vocab, cudaStream_t stream) {
  valid_vocab_ = valid_vocab;
  Collect(draws);
  if (rows_.empty()) return cuda::HeadLogitStore{};
  const std::size_t count = rows_.size(), top = count * static_cast<std::size_t>(top_n_);
  THRESHER_RETURN_IF_ERROR(Send(stream));
  THRESHER_RETURN_IF_ERROR(logits_.Reserve(count * static_cast<std::size_t>(valid_vocab)));
  THRESHER_RETURN_IF_ERROR(draws_.Reserve(count));
  THRESHER_RETURN_IF_ERROR(top_ids_.Reserve(top));
  THRESHER_RETURN_IF_ERROR(top_logprobs_.Reserve(top));
  THRESHER_RETURN_IF_ERROR(scratch_.Reserve(
      cuda::HeadFilterScratchBytes(static_cast<std::int64_t>(count), valid_vocab)));
  const std::size_t bytes = count * sizeof(kernels::HeadDraw) + 2 * top * sizeof(float);
  if (results_.bytes() < bytes) {
    THRESHER_ASSIGN_OR_RETURN(results_, gpu::MakePinnedMemory(bytes));
  }
  return cuda::HeadLogitStore{logits_.data(), valid_vocab, device_slots_.data()};
}

Status FilteredDraws::Put(const kernels::HeadBlock* blocks, cudaStream_t stream) {
  if (rows_.empty()) return Status::Ok();
  const std::size_t count = rows_.size(), top = count * static_cast<std::size_t>(top_n_);
  cuda::HeadChosenRows chosen;
  chosen.count = static_cast<std::int64_t>(count);
  chosen.row = device_rows_.data();
  chosen.valid_vocab = valid_vocab_;
  chosen.blocks = blocks;
  chosen.store = {logits_.data(), valid_vocab_, device_slots_.data()};
  const cuda::HeadLists lists{device_seen_.data(), device_bias_ids_.data(),
                              device_bias_values_.data(), device_allowed_.data()};
  Launches launch;
  launch("filtered sampling", cuda::HeadSampleFiltered(stream, chosen, device_filters_.data(),
                                                       lists, device_uniforms_.data(),
                                                       scratch_.data(), draws_.data(), nullptr));
  auto* to = results_.as<std::byte>();
  const auto fetch = [&](const void* from, std::size_t bytes) {
    launch("copy of draws", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
    to += bytes;
  };
  fetch(draws_.data(), count * sizeof(kernels::HeadDraw));
  if (top_n_ > 0) {
    launch("likeliest ids", cuda::HeadTopLogProbs(stream, chosen, device_temperatures_.data(),
                                                  top_n_, top_ids_.data(), top_logprobs_.data()));
    fetch(top_ids_.data(), top * sizeof(std::int32_t));
    fetch(top_logprobs_.data(), top * sizeof(float));
  }
  return launch.status();
}

void FilteredDraws::Take(std::vector<RowSample>& samples) const {
  const std::size_t count = rows_.size(), width = static_cast<std::size_t>(top_n_);
  const auto* draws = results_.as<kernels::HeadDraw>();
  const auto* ids = reinterpret_cast<const std::int32_t*>(draws + count);
  const auto* logprobs = reinterpret_cast<const float*>(ids + count * width);
  for (std::size_t i = 0; i < count; ++i) {
    RowSample& sample = samples[static_cast<std::size_t>(rows_[i])];
    if (filtered_[i]) {
      sample.token = draws[i].token;
      sample.logprob = draws[i].logprob;
      sample.kept_mass_logprob = draws[i].kept_mass_logprob;
    }
    for (std::int32_t n = 0; n < top_wanted_[i]; ++n) {
      const std::size_t at = i * width + static_cast<std::size_t>(n);
      sample.top.push_back({ids[at], logprobs[at]});
    }
  }
}

}  // namespace thresher::model
