#include "common/comm/cuda_port.h"

#include <algorithm>
#include <vector>

#include "common/base/check.h"
#include "common/comm/poll.h"
#include "common/gpu/error.h"
#include "common/gpu/handles.h"
#include "kernels/cuda/add.h"

namespace thresher::comm {
namespace {

Result<bool> Ended(cudaError_t error, const char* call) {
  if (error == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  THRESHER_RETURN_IF_ERROR(gpu::ToStatus(error, call));
  return true;
}

class CudaPort : public DevicePort {
 public:
  Status Open() {
    THRESHER_ASSIGN_OR_RETURN(stream_, gpu::MakeStream());
    THRESHER_ASSIGN_OR_RETURN(peeking_, gpu::MakeStream());
    THRESHER_ASSIGN_OR_RETURN(mark_, gpu::MakeEvent());
    THRESHER_ASSIGN_OR_RETURN(other_, gpu::MakeEvent());
    THRESHER_ASSIGN_OR_RETURN(peeked_, gpu::MakeEvent());
    return Status::Ok();
  }

  Result<Staging> MakeStaging(std::size_t bytes) override {
    THRESHER_ASSIGN_OR_RETURN(auto host, gpu::MakePinnedMemory(bytes));
    THRESHER_ASSIGN_OR_RETURN(auto device, gpu::MakeDeviceMemory(bytes));
    const Staging staging{host.as<std::byte>(), device.as<std::byte>(), bytes};
    pieces_.push_back({std::move(host), std::move(device)});
    return staging;
  }

  void Return(const Staging& staging) override {
    const auto piece = std::find_if(pieces_.begin(), pieces_.end(),
                                    [&](const Piece& p) { return p.host.data() == staging.host; });
    THRESHER_CHECK(piece != pieces_.end(), "staging that the port did not make");
    pieces_.erase(piece);
  }

  CUstream_st* stream() override { return reinterpret_cast<CUstream_st*>(stream_.get()); }

  Status ToDevice(std::byte* device, const std::byte* pinned, std::size_t bytes) override {
    return gpu::ToStatus(
        cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream_.get()),
        "cudaMemcpyAsync to the device");
  }
  Status ToHost(std::byte* pinned, const std::byte* device, std::size_t bytes) override {
    return gpu::ToStatus(
        cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, stream_.get()),
        "cudaMemcpyAsync to the host");
  }
  Status Add(float* sum, const float* other, std::size_t count, bool other_first) override {
    return gpu::ToStatus(kernels::cuda::Add(stream_.get(), static_cast<std::int64_t>(count), sum,
                                            other, other_first),
                         "Add");
  }

  Status WaitFor(CUstream_st* other) override {
    THRESHER_RETURN_IF_ERROR(gpu::ToStatus(
        cudaEventRecord(other_.get(), reinterpret_cast<cudaStream_t>(other)), "cudaEventRecord"));
    return gpu::ToStatus(cudaStreamWaitEvent(stream_.get(), other_.get(), 0),
                         "cudaStreamWaitEvent");
  }

  Status Mark() override {
    return gpu::ToStatus(cudaEventRecord(mark_.get(), stream_.get()), "cudaEventRecord");
  }
  Result<bool> Reached() override { return Ended(cudaEventQuery(mark_.get()), "cudaEventQuery"); }

  Status Peek(std::byte* pinned, const std::byte* device, std::size_t bytes,
              std::chrono::milliseconds patience) override {
    THRESHER_RETURN_IF_ERROR(gpu::ToStatus(
        cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, peeking_.get()),
        "cudaMemcpyAsync to the host"));
    THRESHER_RETURN_IF_ERROR(
        gpu::ToStatus(cudaEventRecord(peeked_.get(), peeking_.get()), "cudaEventRecord"));
    return Poller(SystemClock().Now() + patience).Await([this] {
      return Ended(cudaEventQuery(peeked_.get()), "cudaEventQuery");
    });
  }

 private:
  struct Piece {
    gpu::PinnedMemory host;
    gpu::DeviceMemory device;
  };

  std::vector<Piece> pieces_;
  gpu::Stream stream_, peeking_;
  gpu::Event mark_, other_, peeked_;
};

}  // namespace

Result<std::unique_ptr<DevicePort>> MakeCudaPort() {
  auto port = std::make_unique<CudaPort>();
  THRESHER_RETURN_IF_ERROR(port->Open());
  return std::unique_ptr<DevicePort>(std::move(port));
}

}  // namespace thresher::comm
