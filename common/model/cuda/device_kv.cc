#include "common/model/cuda/device_kv.h"

namespace thresher::model {

Result<DeviceKv> DeviceKv::Make(const ModelConfig& config, std::int32_t pages) {
  DeviceKv kv;
  kv.pages_ = pages;
  kv.page_stride_ = kernels::KvPageFloats(config.kv_heads, config.head_dim);
  const std::size_t floats = kv.layer_stride() * static_cast<std::size_t>(config.layers);
  THRESHER_ASSIGN_OR_RETURN(kv.keys_, DeviceArray<float>::Make(floats));
  THRESHER_ASSIGN_OR_RETURN(kv.values_, DeviceArray<float>::Make(floats));
  return kv;
}

kernels::cuda::KvCache DeviceKv::layer(int index) const {
  const std::size_t offset = layer_stride() * static_cast<std::size_t>(index);
  return {kernels::cuda::KvType::kF32, keys_.data() + offset, values_.data() + offset,
          page_stride_};
}

}  // namespace thresher::model
