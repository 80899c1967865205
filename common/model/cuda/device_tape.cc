#include "common/model/cuda/device_tape.h"

#include "common/model/cuda/device_products.h"

namespace thresher::model {

Status DeviceTape::Reserve(const ModelConfig& config, std::size_t rows) {
  const auto count = static_cast<std::size_t>(config.layers);
  layers.resize(kind == TapeKind::kAllActivations ? count : 1);
  residual.resize(count + 1);
  for (DeviceLayerActivations& layer : layers) {
    THRESHER_RETURN_IF_ERROR(layer.Reserve(config, rows, true));
  }
  for (DeviceArray<float>& one : residual) {
    THRESHER_RETURN_IF_ERROR(one.Reserve(rows * static_cast<std::size_t>(config.width)));
  }
  return final_inv_rms.Reserve(rows);
}

Status DeviceTape::ReserveUntaped(const ModelConfig& config, std::size_t rows) {
  if (layers.empty()) layers.resize(1);
  if (residual.empty()) residual.resize(1);
  THRESHER_RETURN_IF_ERROR(layers[0].Reserve(config, rows, false));
  return residual[0].Reserve(rows * static_cast<std::size_t>(config.width));
}

Status DeviceBackwardScratch::Reserve(const ModelConfig& config, DeviceKernelSet set,
                                      std::size_t rows) {
  Status status;
  const auto grow = [&](DeviceArray<float>& array, std::int64_t width) {
    if (status.ok()) status = array.Reserve(rows * static_cast<std::size_t>(width));
  };
  grow(activated, config.ffn_width);
  grow(dactivated, config.ffn_width);
  grow(dgate_up, 2 * std::int64_t{config.ffn_width});
  grow(dresidual, config.width);
  grow(dnormed, config.width);
  grow(dattention, config.q_width());
  grow(dqkv, config.q_width() + 2 * config.kv_width());
  THRESHER_RETURN_IF_ERROR(status);
  return attention.Reserve(AttentionGradScratchBytes(config, set, static_cast<std::int64_t>(rows)));
}

}  // namespace thresher::model
