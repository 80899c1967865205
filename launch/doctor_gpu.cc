#include "launch/doctor_gpu.h"

#include "common/comm/nccl_library.h"
#include "common/model/device_plan.h"
#include "launch/progress.h"

namespace thresher::launch {
namespace {

using Level = Finding::Level;

Finding Without(const backend::Gpus& gpus, const GpuSigns& signs) {
  const bool built = !gpus.architectures.empty();
  if (signs.smi.empty() && signs.driver) {
    return {Level::kNote, "GPU", "a driver, but nvidia-smi does not answer",
            "look at `dmesg`; the CPU backend does not need it"};
  }
  if (signs.smi.empty() && !built) {
    return {Level::kGood, "GPU", "none (not needed), and none built for", ""};
  }
  if (signs.smi.empty() && gpus.driver.empty()) {
    return {Level::kNote, "GPU",
            "no driver (not needed on CPUs); kernels for " + gpus.architectures + " are built",
            "for `device: cuda`: " + gpus.status.message()};
  }
  const std::string seen = signs.smi.empty() ? "a driver for CUDA " + gpus.driver : signs.smi;
  return {Level::kNote, "GPU", seen + "; cannot be used by this build", gpus.status.message()};
}

Finding Describe(const backend::Gpu& gpu, const Status& usable) {
  Finding f{Level::kGood, "GPU cuda:" + std::to_string(gpu.index),
            gpu.name + ", " + ShortBytes(double(gpu.total_bytes)) + ", compute capability " +
                std::to_string(gpu.major) + "." + std::to_string(gpu.minor),
            ""};
  if (!usable.ok()) {
    f.level = Level::kNote;
    f.remedy = usable.message();
  }
  return f;
}

Finding TensorCores(const backend::Gpus& gpus) {
  std::string usable;
  for (const backend::Gpu& gpu : gpus.list) {
    if (!gpu.tensor_cores) continue;
    usable += (usable.empty() ? "cuda:" : ", cuda:") + std::to_string(gpu.index);
  }
  const std::string what =
      std::string("kernel set ") + model::DeviceKernelSetName(model::DeviceKernelSet::kBf16);
  if (!usable.empty()) {
    return {Level::kGood, what, usable + "; its self-test decides when it is first used", ""};
  }
  return {Level::kNote, what, "none of these GPUs",
          "it needs compute capability 9.0 (H100, H200) and a build for 90a; cpu-fp32-v1 runs on "
          "8.0 and newer"};
}

}  // namespace

std::vector<Finding> GpuFindings(const backend::Gpus& gpus, const GpuSigns& signs,
                                 const std::function<Status(int index)>& open) {
  if (gpus.list.empty()) return {Without(gpus, signs)};
  std::vector<Finding> out = {{Level::kGood, "GPU",
                               std::to_string(gpus.list.size()) + ", driver for CUDA " +
                                   gpus.driver + ", runtime " + gpus.runtime + ", kernels for " +
                                   gpus.architectures,
                               ""}};
  for (const backend::Gpu& gpu : gpus.list) out.push_back(Describe(gpu, open(gpu.index)));
  out.push_back(TensorCores(gpus));
  return out;
}

Finding NcclFinding(std::size_t gpus) {
  const auto library = comm::ProcessNccl();
  if (library.ok()) {
    return {Level::kGood, "NCCL",
            comm::NcclVersionText((*library)->version) + ", " + (*library)->path, ""};
  }
  const bool none = library.status().code() == StatusCode::kNotFound;
  if (none && gpus < 2) {
    return {Level::kGood, "NCCL", "none (only learners on several GPUs need it)", ""};
  }
  return {Level::kNote, "NCCL", none ? "none; learners on several GPUs need it" : "not usable",
          library.status().message()};
}

}  // namespace thresher::launch
