#include "common/model/kernel_choice.h"

#include "common/log/log.h"

namespace thresher::model {

using kernels::CpuVariant;
using kernels::KernelSet;
using kernels::WeightType;

namespace {

// Of this process.
std::string& ChosenName() {
  static std::string name = kernels::KernelSetName(KernelSet::kFp32);
  return name;
}

}  // namespace

Status ChooseCpuVariant(const std::string& name, const std::string& origin) {
  if (name == "auto") {
    kernels::SetCpuVariant(kernels::BestCpuVariant());
    return Status::Ok();
  }
  std::string allowed = "auto";
  for (CpuVariant variant : kernels::kCpuVariants) {
    if (!kernels::CpuVariantAvailable(variant)) continue;
    allowed += std::string(", ") + kernels::CpuVariantName(variant);
    if (name != kernels::CpuVariantName(variant)) continue;
    kernels::SetCpuVariant(variant);
    return Status::Ok();
  }
  return InvalidArgument(origin + " is " + name + "; allowed on this processor: " + allowed);
}

Status ChooseKernelSet(const std::string& name, const std::string& origin) {
  std::string allowed = "auto";
  if (name == DeviceKernelSetName(DeviceKernelSet::kBf16)) {
    kernels::SetKernelSet(KernelSet::kFp32);  // for what is computed beside the device
    ChosenName() = name;
    return Status::Ok();
  }
  for (KernelSet set : kernels::kKernelSets) {
    allowed += std::string(", ") + kernels::KernelSetName(set);
    const bool wanted =
        name == kernels::KernelSetName(set) || (name == "auto" && set == KernelSet::kFp32);
    if (!wanted) continue;
    kernels::SetKernelSet(set);
    ChosenName() = kernels::KernelSetName(set);
    if (!kernels::KernelSetNative(set)) {
      LogWarning("kernel set " + name +
                 " has no instructions of its own on this processor; it is " +
                 "computed without them: the same bits, no faster than cpu-fp32-v1");
    }
    return Status::Ok();
  }
  allowed += std::string(", ") + DeviceKernelSetName(DeviceKernelSet::kBf16);
  return InvalidArgument(origin + " is " + name + "; allowed: " + allowed);
}

const std::string& ChosenKernelSet() { return ChosenName(); }

Result<DeviceKernelSet> ChosenDeviceSet() {
  if (const auto set = DeviceKernelSetOf(ChosenName())) return *set;
  return FailedPrecondition("the kernel set " + ChosenName() +
                            " is not computed on GPUs; they have " +
                            DeviceKernelSetName(DeviceKernelSet::kFp32) + " and " +
                            DeviceKernelSetName(DeviceKernelSet::kBf16));
}

Status CheckCpuComputes() {
  if (ChosenName() != DeviceKernelSetName(DeviceKernelSet::kBf16)) return Status::Ok();
  return FailedPrecondition("the kernel set " + ChosenName() +
                            " is computed on GPUs alone, not on the CPU (device cuda)");
}

KernelSet FastestKernelSet(WeightType type) {
  KernelSet best = KernelSet::kFp32;
  if (type != WeightType::kBf16) return best;
  for (KernelSet set : kernels::kKernelSets) {  // in ascending order of speed where native
    if (kernels::KernelSetNative(set)) best = set;
  }
  return best;
}

}  // namespace thresher::model
