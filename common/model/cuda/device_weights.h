#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "common/model/cuda/device_array.h"
#include "common/model/cuda/device_matrix.h"
#include "common/model/device_plan.h"
#include "common/model/packed_model.h"

namespace thresher::model {

// One layer's weights on a device; PackedLayer's shapes.
struct DeviceLayer {
  const float* input_norm = nullptr;
  const float* post_norm = nullptr;
  const float* qkv_bias = nullptr;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  DeviceMatrix qkv, o, gate_up, down;
};

// One version's weights on a device, in the form of a kernel set. The memory stays and takes one
// version after another, each at the same places.
class DeviceWeights {
 public:
  // Room for a model of this shape. with_backward: of cpu-fp32-v1, with the transposes. Error:
  // kResourceExhausted.
  static Result<std::unique_ptr<DeviceWeights>> Make(const ModelConfig& config, DeviceKernelSet set,
                                                     bool with_backward);

  // Puts the copy on `stream`; complete when that is done with it, until when `weights` must live.
  // Nothing may read what was here before meanwhile. staging: memory that the copy passes through,
  // WeightStagingBytes or any more than a panel of the widest matrix; of the stream, so that
  // several buffers share it. Errors: the device's. A model of another shape, or without the
  // transposes that there is room for, ends the process.
  Status Upload(const PackedWeights& weights, const DeviceArray<std::byte>& staging,
                cudaStream_t stream);
  // The same from master weights on the device (fp32, MakeLayout's order), which are rounded to
  // config.dtype: the bits of Upload of what PackedModel::Make packs of them. valid_vocab: as
  // there.
  Status Pack(const float* masters, std::int32_t valid_vocab, cudaStream_t stream);

  const ModelConfig& config() const { return config_; }
  std::int32_t valid_vocab() const { return valid_vocab_; }
  std::int32_t qkv_width() const { return config_.q_width() + 2 * config_.kv_width(); }
  // On the device from here on.
  const DeviceLayer& layer(int index) const { return layers_[static_cast<std::size_t>(index)]; }
  const DeviceMatrix& embedding() const { return embedding_; }  // [V, D]
  const float* final_norm() const { return final_norm_; }
  const DeviceMatrix& head() const { return head_; }  // [V, D]
  const float* cos() const { return cos_.data(); }
  const float* sin() const { return sin_.data(); }

 private:
  DeviceWeights(const ModelConfig& config, DeviceKernelSet set, bool with_backward)
      : config_(config), set_(set), with_backward_(with_backward) {}
  void UploadPanels(const PackedWeights& weights, cudaStream_t stream, Launches& launch);
  void UploadRows(const PackedWeights& weights, const DeviceArray<std::byte>& staging,
                  cudaStream_t stream, Launches& launch);

  const ModelConfig config_;
  const DeviceKernelSet set_;
  const bool with_backward_;
  std::int32_t valid_vocab_ = 0;
  DeviceArray<std::byte> memory_;   // of all weights
  DeviceArray<float> cos_, sin_;    // [context, Dh/2]
  bool has_rope_ = false;
  std::vector<DeviceLayer> layers_;
  DeviceMatrix embedding_, head_;
  const float* final_norm_ = nullptr;
};

}  // namespace thresher::model
