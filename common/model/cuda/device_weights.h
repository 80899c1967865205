#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "common/model/cuda/device_array.h"
#include "common/model/packed_model.h"

namespace thresher::model {

// One version's weights on a device: a copy of the packed model's one stretch of memory, with the
// same pointers moved. The memory stays and takes one version after another.
class DeviceWeights {
 public:
  // Room for a model of this shape. Error: kResourceExhausted.
  static Result<std::unique_ptr<DeviceWeights>> Make(const ModelConfig& config, bool with_backward);

  // Puts the copy on `stream`; complete when that is done with it, until when `weights` must live.
  // Nothing may read what was here before meanwhile. Errors: the device's. A model that does not
  // have the shape ends the process.
  Status Upload(const PackedWeights& weights, cudaStream_t stream);

  const ModelConfig& config() const { return config_; }
  std::int32_t valid_vocab() const { return valid_vocab_; }
  std::int32_t qkv_width() const { return config_.q_width() + 2 * config_.kv_width(); }
  // Pointers into the device's memory from here on.
  const PackedLayer& layer(int index) const { return layers_[static_cast<std::size_t>(index)]; }
  kernels::PackedMatrix embedding() const { return embedding_; }
  const float* final_norm() const { return final_norm_; }
  kernels::PackedMatrix head() const { return head_; }
  kernels::PackedMatrix head_transposed() const { return head_transposed_; }
  const float* cos() const { return cos_.data(); }
  const float* sin() const { return sin_.data(); }

 private:
  explicit DeviceWeights(const ModelConfig& config) : config_(config) {}

  ModelConfig config_;
  std::int32_t valid_vocab_ = 0;
  DeviceArray<std::byte> memory_;
  DeviceArray<float> cos_, sin_;  // [context, Dh/2]
  bool has_rope_ = false;
  std::vector<PackedLayer> layers_;
  kernels::PackedMatrix embedding_, head_, head_transposed_;
  const float* final_norm_ = nullptr;
};

}  // namespace thresher::model
