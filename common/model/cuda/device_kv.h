#pragma once

#include "common/model/cuda/device_array.h"
#include "common/model/device_plan.h"
#include "kernels/cuda/kv_cache.h"

namespace thresher::model {

// KV pages of all layers on a device. Page ids are handed out by the caller. Contents undefined at
// first.
class DeviceKv {
 public:
  DeviceKv() = default;
  // Error: kResourceExhausted.
  static Result<DeviceKv> Make(const ModelConfig& config, DeviceKernelSet set, std::int32_t pages);
  std::int32_t pages() const { return pages_; }
  kernels::cuda::KvCache layer(int index) const;
  std::size_t layer_stride() const { return page_stride_ * static_cast<std::size_t>(pages_); }
  std::size_t bytes() const { return keys_.bytes() + values_.bytes(); }

 private:
  std::byte* At(const DeviceArray<std::byte>& pages, int layer) const;

  std::int32_t pages_ = 0;
  kernels::cuda::KvType type_ = kernels::cuda::KvType::kF32;
  std::size_t page_stride_ = 0;  // elements
  DeviceArray<std::byte> keys_, values_;
};

}  // namespace thresher::model
