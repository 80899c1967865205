#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "common/gpu/error.h"
#include "common/gpu/handles.h"

namespace thresher::model {

// `count` values of type T in device memory, contents undefined. Move-only.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  // Error: kResourceExhausted.
  static Result<DeviceArray> Make(std::size_t count) {
    DeviceArray array;
    if (count > 0) {
      THRESHER_ASSIGN_OR_RETURN(array.memory_, gpu::MakeDeviceMemory(count * sizeof(T)));
    }
    array.count_ = count;
    return array;
  }
  // Room for at least `count`; what was there is gone when it grows. Nothing may use it meanwhile.
  Status Reserve(std::size_t count) {
    if (count <= count_) return Status::Ok();
    *this = DeviceArray();  // first: both together might not fit
    THRESHER_ASSIGN_OR_RETURN(*this, Make(count));
    return Status::Ok();
  }
  T* data() const { return memory_.template as<T>(); }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return count_ * sizeof(T); }

 private:
  gpu::DeviceMemory memory_;
  std::size_t count_ = 0;
};

// The first error of a sequence of launches and copies, with the name of what failed.
class Launches {
 public:
  void operator()(const char* what, cudaError_t error) {
    if (error != cudaSuccess && status_.ok()) status_ = gpu::ToStatus(error, what);
  }
  const Status& status() const { return status_; }

 private:
  Status status_;
};

}  // namespace thresher::model
