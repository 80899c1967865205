#include "common/model/kernel_choice.h"

#include "common/log/log.h"

namespace thresher::model {

using kernels::CpuVariant;
using kernels::KernelSet;
using kernels::WeightType;

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
  for (KernelSet set : kernels::kKernelSets) {
    allowed += std::string(", ") + kernels::KernelSetName(set);
    const bool wanted =
        name == kernels::KernelSetName(set) || (name == "auto" && set == KernelSet::kFp32);
    if (!wanted) continue;
    kernels::SetKernelSet(set);
    if (!kernels::KernelSetNative(set)) {
      LogWarning("kernel set " + name +
                 " has no instructions of its own on this processor; it is " +
                 "computed without them: the same bits, no faster than cpu-fp32-v1");
    }
    return Status::Ok();
  }
  return InvalidArgument(origin + " is " + name + "; allowed: " + allowed);
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
