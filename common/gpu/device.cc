#include "common/gpu/device.h"

#include <cuda_runtime_api.h>

#include <cctype>
#include <cstdlib>
#include <sstream>

#include "common/gpu/error.h"

namespace thresher::gpu {
namespace {

constexpr int kOldestMajor = 8;

std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Status NoDevices(cudaError_t error) {
  const Versions versions = CudaVersions();
  if (versions.driver == 0) {
    return FailedPrecondition("GPU: no NVIDIA driver answers; install one for CUDA " +
                              VersionText(versions.runtime) +
                              " or newer, or give the container its devices (--gpus all, --nv)");
  }
  if (error == cudaErrorInsufficientDriver || versions.driver / 1000 < versions.runtime / 1000) {
    return FailedPrecondition("GPU: the driver is for CUDA " + VersionText(versions.driver) +
                              "; this program needs " + VersionText(versions.runtime) +
                              ": a newer driver, or a build with an older toolkit");
  }
  return ToStatus(error, "GPU: cudaGetDeviceCount (is CUDA_VISIBLE_DEVICES empty?)");
}

Result<DeviceInfo> Describe(int index) {
  cudaDeviceProp properties;
  THRESHER_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties"));
  DeviceInfo info;
  info.index = index;
  info.name = properties.name;
  info.major = properties.major;
  info.minor = properties.minor;
  info.total_bytes = properties.totalGlobalMem;
  info.multiprocessors = properties.multiProcessorCount;
  char bus[32] = {};
  if (cudaDeviceGetPCIBusId(bus, sizeof bus, index) == cudaSuccess) info.pci_bus = bus;
  return info;
}

std::string Listed(const std::vector<DeviceInfo>& devices) {
  std::string out;
  for (const DeviceInfo& device : devices) {
    if (!out.empty()) out += ", ";
    out += std::to_string(device.index) + " (" + device.name + ")";
  }
  return out;
}

}  // namespace

Versions CudaVersions() {
  Versions versions;
  if (cudaRuntimeGetVersion(&versions.runtime) != cudaSuccess) versions.runtime = CUDART_VERSION;
  if (cudaDriverGetVersion(&versions.driver) != cudaSuccess) versions.driver = 0;
  return versions;
}

const char* BuiltArchitectures() { return THRESHER_CUDA_ARCHITECTURES; }

bool RunsOn(const std::string& architectures, int major, int minor) {
  std::istringstream in(architectures);
  for (std::string one; std::getline(in >> std::ws, one, ',');) {
    const int number = std::atoi(one.c_str());
    const bool exact = std::isalpha(static_cast<unsigned char>(one.back())) != 0;
    if (number / 10 == major && (exact ? number % 10 == minor : number % 10 <= minor)) return true;
  }
  return false;
}

Result<std::vector<DeviceInfo>> ListDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    (void)cudaGetLastError();  // not to be found by the next call
    return NoDevices(error != cudaSuccess ? error : cudaErrorNoDevice);
  }
  std::vector<DeviceInfo> devices;
  for (int index = 0; index < count; ++index) {
    THRESHER_ASSIGN_OR_RETURN(DeviceInfo info, Describe(index));
    devices.push_back(std::move(info));
  }
  return devices;
}

Result<DeviceInfo> OpenDevice(int index) {
  THRESHER_ASSIGN_OR_RETURN(const auto devices, ListDevices());
  if (index < 0 || index >= static_cast<int>(devices.size())) {
    return NotFound("GPU " + std::to_string(index) + ": no such device; there are " +
                    Listed(devices));
  }
  const DeviceInfo& device = devices[static_cast<std::size_t>(index)];
  const std::string what = "GPU " + std::to_string(index) + " (" + device.name + ", " +
                           std::to_string(device.major) + "." + std::to_string(device.minor) + ")";
  if (device.major < kOldestMajor) {
    return FailedPrecondition(what + ": compute capability is below 8.0, the oldest supported");
  }
  if (!RunsOn(BuiltArchitectures(), device.major, device.minor)) {
    return FailedPrecondition(what + ": this program has kernels for " + BuiltArchitectures() +
                              " alone; build it with -DTHRESHER_CUDA_ARCHITECTURES=" +
                              std::to_string(10 * device.major + device.minor));
  }
  cudaError_t error = cudaSetDevice(index);
  if (error == cudaSuccess) error = cudaFree(nullptr);  // makes the context
  if (KindOf(error) == ErrorKind::kBusy) {
    return Unavailable(what + ": another process has it for itself (compute mode exclusive); " +
                       "see nvidia-smi");
  }
  THRESHER_RETURN_IF_ERROR(ToStatus(error, what + ": cudaSetDevice"));
  return device;
}

Status UseDevice(int index) {
  return ToStatus(cudaSetDevice(index), "cudaSetDevice(" + std::to_string(index) + ")");
}

}  // namespace thresher::gpu
