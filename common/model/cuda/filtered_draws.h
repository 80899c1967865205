#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "common/gpu/handles.h"
#include "common/model/cuda/device_array.h"
#include "common/model/step_runner.h"
#include "kernels/cuda/head_filter.h"

namespace thresher::model {

// Whether a draw needs its row's logits: it has filters, or the likeliest ids are wanted.
inline bool NeedsLogits(const RowSampling& sampling) {
  return sampling.Filtered() || sampling.top_n > 0;
}

// The draws of one step that need their rows' logits: filtered sampling and the likeliest ids on
// the device, and their results on the host. Grows with what is asked of it.
class FilteredDraws {
 public:
  // Sends what the step's draws need and says where the scan is to keep their logits. None of them
  // does: an empty store. Borrows the draws' lists for the call. Errors: the device's.
  Result<kernels::cuda::HeadLogitStore> Begin(const std::vector<StepDraw>& draws,
                                              std::int32_t valid_vocab, cudaStream_t stream);
  // After the scan: puts sampling and the copy of its results on the stream.
  Status Put(const kernels::HeadBlock* blocks, cudaStream_t stream);
  // Once that has been done: into the samples of the draws that it was for.
  void Take(std::vector<RowSample>& samples) const;
  bool empty() const { return rows_.empty(); }

 private:
  void Collect(const std::vector<StepDraw>& draws);
  Status Send(cudaStream_t stream);

  std::int32_t valid_vocab_ = 0;
  std::int32_t top_n_ = 0;  // the most that any draw wants
  // Of the host; [C] draws that need logits.
  std::vector<std::int32_t> rows_, slots_, seen_, bias_ids_, top_wanted_;
  std::vector<bool> filtered_;
  std::vector<kernels::cuda::HeadRowFilter> filters_;
  std::vector<float> temperatures_, bias_values_;
  std::vector<double> uniforms_;
  std::vector<std::uint64_t> allowed_;
  // The same on the device, and what comes of it.
  DeviceArray<std::int32_t> device_rows_, device_slots_, device_seen_, device_bias_ids_, top_ids_;
  DeviceArray<kernels::cuda::HeadRowFilter> device_filters_;
  DeviceArray<float> device_temperatures_, device_bias_values_, logits_, top_logprobs_;
  DeviceArray<double> device_uniforms_;
  DeviceArray<std::uint64_t> device_allowed_;
  DeviceArray<std::byte> scratch_;
  DeviceArray<kernels::HeadDraw> draws_;
  gpu::PinnedMemory results_;  // draws, then ids and log-probabilities
};

}  // namespace thresher::model
