#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>

#include "common/base/status.h"

namespace thresher::gpu {

// A thing of the CUDA runtime with one owner. Move-only; empty after a move.
template <class Handle, cudaError_t (*kDestroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != Handle{}) (void)kDestroy(handle_);
  }
  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != Handle{}; }

 private:
  Handle handle_{};
};

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;
using Graph = Owned<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;

// A stream that does not wait for the default one. Errors: see ToStatus; so below.
Result<Stream> MakeStream();
// timing: it measures time, which costs.
Result<Event> MakeEvent(bool timing = false);
// The longest that a device is waited for: no step or leaf takes a tenth of it.
inline constexpr std::chrono::minutes kDeviceDeadline{10};

// Wait until all work on `stream`, or what was put before `event` was recorded, is done; what went
// wrong in it is found here. `what` is waited for, with back-off: a step is found within
// microseconds, a long wait costs no core. Errors: the device's; kDeadlineExceeded.
Status Await(const Stream& stream, const std::string& what,
             std::chrono::milliseconds deadline = kDeviceDeadline);
Status Await(const Event& event, const std::string& what,
             std::chrono::milliseconds deadline = kDeviceDeadline);

// Memory of one kind with its size. Move-only.
template <cudaError_t (*kFree)(void*)>
class Memory {
 public:
  Memory() = default;
  Memory(void* data, std::size_t bytes) : data_(data), bytes_(bytes) {}
  void* data() const { return data_.get(); }
  std::size_t bytes() const { return data_ ? bytes_ : 0; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data());
  }

 private:
  Owned<void*, kFree> data_;
  std::size_t bytes_ = 0;
};

// cudaFree of what MakeDeviceMemory gave.
cudaError_t FreeDeviceMemory(void* data);

using DeviceMemory = Memory<FreeDeviceMemory>;
using PinnedMemory = Memory<cudaFreeHost>;  // of the host; copies to and from it run beside kernels

// Contents undefined. Errors: kResourceExhausted; of the device with what is free.
Result<DeviceMemory> MakeDeviceMemory(std::size_t bytes);
Result<PinnedMemory> MakePinnedMemory(std::size_t bytes);

// Device memory of this process, in bytes: what it has of MakeDeviceMemory, and the most that it
// ever had. What CUDA takes for itself is not in it. Thread-safe.
struct DeviceMemoryUsage {
  std::size_t taken = 0, most = 0;
};
DeviceMemoryUsage UsageOfDevices();

}  // namespace thresher::gpu
