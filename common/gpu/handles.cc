#include "common/gpu/handles.h"

#include <string>

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

Status Synchronize(const Stream& stream) {
  return ToStatus(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
}

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
  return DeviceMemory(data, bytes);
}

Result<PinnedMemory> MakePinnedMemory(std::size_t bytes) {
  void* data = nullptr;
  THRESHER_RETURN_IF_ERROR(ToStatus(cudaMallocHost(&data, bytes),
                                    "cudaMallocHost of " + std::to_string(bytes) + " bytes"));
  return PinnedMemory(data, bytes);
}

}  // namespace thresher::gpu
