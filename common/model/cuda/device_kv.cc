#include "common/model/cuda/device_kv.h"

namespace thresher::model {

namespace cuda = kernels::cuda;

Result<DeviceKv> DeviceKv::Make(const ModelConfig& config, DeviceKernelSet set,
                                std::int32_t pages) {
  DeviceKv kv;
  kv.pages_ = pages;
  kv.type_ = set == DeviceKernelSet::kFp32 ? cuda::KvType::kF32 : cuda::KvType::kBf16;
  kv.page_stride_ = kernels::KvPageFloats(config.kv_heads, config.head_dim);
  const std::size_t bytes =
      kv.layer_stride() * static_cast<std::size_t>(config.layers) * cuda::KvElementBytes(kv.type_);
  THRESHER_ASSIGN_OR_RETURN(kv.keys_, DeviceArray<std::byte>::Make(bytes));
  THRESHER_ASSIGN_OR_RETURN(kv.values_, DeviceArray<std::byte>::Make(bytes));
  return kv;
}

std::byte* DeviceKv::At(const DeviceArray<std::byte>& pages, int layer) const {
  return pages.data() +
         layer_stride() * static_cast<std::size_t>(layer) * cuda::KvElementBytes(type_);
}

cuda::KvCache DeviceKv::layer(int index) const {
  return {type_, At(keys_, index), At(values_, index), page_stride_};
}

}  // namespace thresher::model
