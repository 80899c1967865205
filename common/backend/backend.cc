#include "common/backend/backend.h"

#include <algorithm>
#include <fstream>

#include "common/base/check.h"
#include "common/model/kernel_choice.h"

#if defined(THRESHER_WITH_CUDA)
#include "common/gpu/device.h"
#include "common/gpu/handles.h"
#include "common/model/cuda/cuda_runner.h"
#include "common/model/cuda/cuda_training_pass.h"
#endif

namespace thresher::backend {

#if defined(THRESHER_WITH_CUDA)

namespace {
// For the memory of a process that was killed in its turn, which the driver has back a little after
// the turn has ended.
constexpr std::chrono::seconds kPatience{30};

Result<int> CountDevices() {
  THRESHER_ASSIGN_OR_RETURN(const auto devices, gpu::ListDevices());
  return static_cast<int>(devices.size());
}
}  // namespace

Status CheckDevice(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return Status::Ok();
  return gpu::OpenDevice(device.index).status();
}

#else

namespace {
Result<int> CountDevices() { return CheckDevice({DeviceKind::kCuda, 0}); }
}  // namespace

Status CheckDevice(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return Status::Ok();
  return FailedPrecondition(device.ToString() +
                            ": this build has no kernels for GPUs; build where the CUDA toolkit's "
                            "nvcc is found, or use cpu");
}

#endif

Result<Device> DeviceOf(const DeviceChoice& choice, int process) {
  if (choice.kind == DeviceKind::kCpu) return Device{};
  THRESHER_ASSIGN_OR_RETURN(const int count, CountDevices());
  const Device device = choice.Of(process, count);
  THRESHER_RETURN_IF_ERROR(CheckDevice(device));
  return device;
}

Result<std::unique_ptr<model::StepRunner>> MakeRunner(const Device& device,
                                                      const model::ModelConfig& config,
                                                      const RunnerOptions& options) {
  if (device.kind == DeviceKind::kCpu) {
    THRESHER_RETURN_IF_ERROR(model::CheckCpuComputes());
    return model::MakeCpuRunner(config, options.pages, options.slots,
                                model::NewWorkspace(options.pool));
  }
  THRESHER_RETURN_IF_ERROR(CheckDevice(device));
#if defined(THRESHER_WITH_CUDA)
  model::CudaRunnerOptions cuda;
  THRESHER_ASSIGN_OR_RETURN(cuda.set, model::ChosenDeviceSet());
  cuda.device = device.index;
  cuda.pages = options.pages;
  cuda.slots = options.slots;
  cuda.max_rows = options.max_rows;
  if (options.colocated) cuda.patience = kPatience;
  return model::MakeCudaRunner(config, cuda);
#else
  return InternalError("unreachable");
#endif
}

#if defined(THRESHER_WITH_CUDA)
namespace {
Result<model::CudaTrainingOptions> CudaOptions(const Device& device, bool colocated) {
  model::CudaTrainingOptions cuda;
  cuda.device = device.index;
  if (colocated) cuda.patience = kPatience;
  THRESHER_ASSIGN_OR_RETURN(cuda.set, model::ChosenDeviceSet());
  return cuda;
}
}  // namespace
#endif

Result<std::unique_ptr<model::TrainingPass>> MakeTrainingPass(const Device& device,
                                                              const model::ModelConfig& config,
                                                              bool colocated) {
  if (device.kind == DeviceKind::kCpu) {
    THRESHER_RETURN_IF_ERROR(model::CheckCpuComputes());
    return model::MakeCpuTrainingPass(config);
  }
  THRESHER_RETURN_IF_ERROR(CheckDevice(device));
#if defined(THRESHER_WITH_CUDA)
  THRESHER_ASSIGN_OR_RETURN(const auto cuda, CudaOptions(device, colocated));
  return model::MakeCudaTrainingPass(config, cuda);
#else
  return InternalError("unreachable");
#endif
}

GpuMemory GpuMemoryTaken() {
#if defined(THRESHER_WITH_CUDA)
  const gpu::DeviceMemoryUsage usage = gpu::UsageOfDevices();
  return {usage.taken, usage.most};
#else
  return {};
#endif
}

Result<std::unique_ptr<DeviceTurn>> OpenTurn(const Device& device,
                                             const std::filesystem::path& run_folder,
                                             TurnSide side) {
  THRESHER_RETURN_IF_ERROR(CheckDevice(device));
  THRESHER_CHECK(device.kind == DeviceKind::kCuda, "turns on a CPU");
#if defined(THRESHER_WITH_CUDA)
  THRESHER_ASSIGN_OR_RETURN(const auto info, gpu::OpenDevice(device.index));
  // The folder may be another machine's too, and processes may count their devices differently.
  std::string machine = "machine";
  std::ifstream("/proc/sys/kernel/random/boot_id") >> machine;
  std::string name = "gpu-" + machine + "-" + info.pci_bus + ".turn";
  std::replace(name.begin(), name.end(), ':', '-');
  return DeviceTurn::Open(run_folder / name, side);
#else
  return InternalError("unreachable");
#endif
}

Result<model::TrainingDevice> MakeTrainingDevice(const Device& device,
                                                 const model::ModelConfig& config,
                                                 const TrainingOptions& options) {
  model::TrainingDevice made;
  if (device.kind == DeviceKind::kCpu) {
    THRESHER_RETURN_IF_ERROR(model::CheckCpuComputes());
    return made;
  }
  THRESHER_RETURN_IF_ERROR(CheckDevice(device));
#if defined(THRESHER_WITH_CUDA)
  THRESHER_ASSIGN_OR_RETURN(auto cuda, CudaOptions(device, options.colocated));
  if (options.resident) {
    THRESHER_ASSIGN_OR_RETURN(
        cuda.parameters,
        model::DeviceParameters::Make(config, {device.index, options.valid_vocab, cuda.patience}));
  }
  made.parameters = cuda.parameters;
  THRESHER_ASSIGN_OR_RETURN(made.pass, model::MakeCudaTrainingPass(config, cuda));
  cuda.parameters = nullptr;
  if (options.critic) {
    THRESHER_ASSIGN_OR_RETURN(made.critic, model::MakeCudaTrainingPass(config, cuda));
  }
#endif
  return made;
}

}  // namespace thresher::backend
