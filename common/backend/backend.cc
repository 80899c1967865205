#include "common/backend/backend.h"

#include <charconv>

#if defined(THRESHER_WITH_CUDA)
#include "common/gpu/device.h"
#include "common/model/cuda/cuda_runner.h"
#endif

namespace thresher::backend {

std::string Device::ToString() const {
  return kind == DeviceKind::kCpu ? "cpu" : "cuda:" + std::to_string(index);
}

Result<Device> ParseDevice(const std::string& text, const std::string& key) {
  if (text == "cpu") return Device{};
  if (text == "cuda") return Device{DeviceKind::kCuda, 0};
  constexpr std::string_view kPrefix = "cuda:";
  if (text.starts_with(kPrefix)) {
    int index = -1;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + kPrefix.size(), end, index);
    if (error == std::errc() && stop == end && index >= 0) return Device{DeviceKind::kCuda, index};
  }
  return InvalidArgument(key + ": '" + text + "'; allowed: cpu, cuda, cuda:N");
}

#if defined(THRESHER_WITH_CUDA)

bool HasCuda() { return true; }

Status CheckDevice(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return Status::Ok();
  return gpu::OpenDevice(device.index).status();
}

#else

bool HasCuda() { return false; }

Status CheckDevice(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return Status::Ok();
  return FailedPrecondition(device.ToString() +
                            ": this build has no kernels for GPUs; build where the CUDA toolkit's "
                            "nvcc is found, or use cpu");
}

#endif

Result<std::unique_ptr<model::StepRunner>> MakeRunner(const Device& device,
                                                      const model::ModelConfig& config,
                                                      const RunnerOptions& options) {
  if (device.kind == DeviceKind::kCpu) {
    return model::MakeCpuRunner(config, options.pages, options.slots,
                                model::NewWorkspace(options.pool));
  }
  THRESHER_RETURN_IF_ERROR(CheckDevice(device));
#if defined(THRESHER_WITH_CUDA)
  model::CudaRunnerOptions cuda;
  cuda.device = device.index;
  cuda.pages = options.pages;
  cuda.slots = options.slots;
  cuda.max_rows = options.max_rows;
  return model::MakeCudaRunner(config, cuda);
#else
  return InternalError("unreachable");
#endif
}

}  // namespace thresher::backend
