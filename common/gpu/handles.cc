#include "common/gpu/handles.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "common/base/check.h"
#include "common/gpu/error.h"

namespace thresher::gpu {

Result<Stream> MakeStream() {
  cudaStream_t stream = nullptr;
  THRESHER_RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                    "cudaStreamCreateWithFlags"));
  return Stream(stream);
}

Result<Event> MakeEvent(bool timing) {
  cudaEvent_t event = nullptr;
  THRESHER_RETURN_IF_ERROR(
      ToStatus(cudaEventCreateWithFlags(&event, timing ? cudaEventDefault : cudaEventDisableTiming),
               "cudaEventCreateWithFlags"));
  return Event(event);
}

namespace {

// Asks `query` until it has an answer.
template <class Query>
Status AwaitBy(const Query& query, const std::string& what, std::chrono::milliseconds deadline) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kPatience{200}, kFirstPause{10}, kLongestPause{1000};
  const Clock::time_point begin = Clock::now();
  auto pause = kFirstPause;
  for (cudaError_t answer = query();; answer = query()) {
    if (answer != cudaErrorNotReady) return ToStatus(answer, what);
    (void)cudaGetLastError();  // else the next launch would take it for its own
    const auto waited = Clock::now() - begin;
    if (waited >= deadline) {
      return DeadlineExceeded(what + ": the GPU has not come to its end within " +
                              std::to_string(deadline.count()) + " ms");
    }
    if (waited < kPatience) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongestPause);
    }
  }
}

}  // namespace

Status Await(const Stream& stream, const std::string& what, std::chrono::milliseconds deadline) {
  return AwaitBy([&] { return cudaStreamQuery(stream.get()); }, what, deadline);
}

Status Await(const Event& event, const std::string& what, std::chrono::milliseconds deadline) {
  return AwaitBy([&] { return cudaEventQuery(event.get()); }, what, deadline);
}

namespace {

// What each piece of device memory has, and all together. Pieces are few and live long.
class Ledger {
 public:
  void Took(void* data, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    bytes_[data] = bytes;
    usage_.taken += bytes;
    usage_.most = std::max(usage_.most, usage_.taken);
  }
  void Gave(void* data) {
    const std::lock_guard lock(mutex_);
    const auto found = bytes_.find(data);
    THRESHER_CHECK(found != bytes_.end(), "device memory given back that nobody took");
    usage_.taken -= found->second;
    bytes_.erase(found);
  }
  DeviceMemoryUsage usage() const {
    const std::lock_guard lock(mutex_);
    return usage_;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<void*, std::size_t> bytes_;
  DeviceMemoryUsage usage_;
};

Ledger& TheLedger() {
  static auto* ledger = new Ledger;  // outlives what static destructors give back
  return *ledger;
}

}  // namespace

cudaError_t FreeDeviceMemory(void* data) {
  TheLedger().Gave(data);
  return cudaFree(data);
}

DeviceMemoryUsage UsageOfDevices() { return TheLedger().usage(); }

Result<DeviceMemory> MakeDeviceMemory(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    std::size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    return ResourceExhausted("cudaMalloc of " + std::to_string(bytes) + " bytes: " +
                             std::to_string(free) + " of " + std::to_string(total) + " are free");
  }
  THRESHER_RETURN_IF_ERROR(ToStatus(error, "cudaMalloc of " + std::to_string(bytes) + " bytes"));
  TheLedger().Took(data, bytes);
  return DeviceMemory(data, bytes);
}

Result<PinnedMemory> MakePinnedMemory(std::size_t bytes) {
  void* data = nullptr;
  THRESHER_RETURN_IF_ERROR(ToStatus(cudaMallocHost(&data, bytes),
                                    "cudaMallocHost of " + std::to_string(bytes) + " bytes"));
  return PinnedMemory(data, bytes);
}

}  // namespace thresher::gpu
