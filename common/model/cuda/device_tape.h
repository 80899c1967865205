#pragma once

#include <vector>

#include "common/model/cuda/device_forward.h"

namespace thresher::model {

// What a forward pass on a device leaves for the backward pass: Tape's (activations.h).
struct DeviceTape {
  TapeKind kind = TapeKind::kAllActivations;
  std::vector<DeviceLayerActivations> layers;  // one each; of kLayerInputs one that all share
  std::vector<DeviceArray<float>> residual;  // [T, D] before each layer, and before the final norm
  DeviceArray<float> final_inv_rms;          // [T]

  // Error: kResourceExhausted; below too.
  Status Reserve(const ModelConfig& config, std::size_t rows);
  // For a pass that leaves nothing: room for layer(0) and input(0), which all its layers share.
  Status ReserveUntaped(const ModelConfig& config, std::size_t rows);
  DeviceLayerActivations& layer(int index) {
    return layers[kind == TapeKind::kLayerInputs ? 0 : static_cast<std::size_t>(index)];
  }
  float* input(int layer) { return residual[static_cast<std::size_t>(layer)].data(); }
};

// Scratch of the backward pass, which the forward pass shares (`activated`).
struct DeviceBackwardScratch {
  DeviceArray<float> activated, dactivated, dgate_up;  // [T, F], [T, F], [T, 2F]
  DeviceArray<float> dresidual, dnormed;               // [T, D]
  DeviceArray<float> dattention, dqkv;                 // [T, H Dh], [T, (H + 2K) Dh]
  DeviceArray<std::byte> attention;                    // of its kernels

  Status Reserve(const ModelConfig& config, DeviceKernelSet set, std::size_t rows);
};

}  // namespace thresher::model
