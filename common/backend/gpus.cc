#include "common/backend/gpus.h"

#include "common/backend/backend.h"

#if defined(THRESHER_WITH_CUDA)
#include "common/gpu/device.h"
#endif

namespace thresher::backend {

#if defined(THRESHER_WITH_CUDA)

namespace {
std::string VersionText(int version) {
  if (version == 0) return "";
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}
}  // namespace

Gpus FindGpus() {
  Gpus gpus;
  gpus.architectures = gpu::BuiltArchitectures();
  const gpu::Versions versions = gpu::CudaVersions();
  gpus.runtime = VersionText(versions.runtime);
  gpus.driver = VersionText(versions.driver);
  const auto devices = gpu::ListDevices();
  gpus.status = devices.status();
  if (!devices.ok()) return gpus;
  for (const gpu::DeviceInfo& info : *devices) {
    const bool hopper = info.major == 9 && info.minor == 0;
    gpus.list.push_back({info.index, info.name, info.major, info.minor, info.total_bytes,
                         hopper && gpus.architectures.find("90a") != std::string::npos});
  }
  return gpus;
}

#else

Gpus FindGpus() {
  Gpus gpus;
  gpus.status = CheckDevice({DeviceKind::kCuda, 0});
  return gpus;
}

#endif

}  // namespace thresher::backend
