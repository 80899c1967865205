#pragma once

#include <string>

#include "common/base/status.h"
#include "common/model/device_plan.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/weight_type.h"

// The kernels a process computes with, by the names that configurations and commands use. To be
// chosen before anything is computed.
namespace thresher::model {

// Chooses the variant: "auto" (the fastest here), or one by its name. Error: kInvalidArgument (no
// such variant, or this CPU cannot run it), beginning with `origin` (a key or an option) and
// listing what is allowed here.
Status ChooseCpuVariant(const std::string& name, const std::string& origin);

// Chooses the kernel set by its name; "auto" is cpu-fp32-v1. One that this CPU has no instructions
// for is computed without them, with the same bits, and logged; cuda-bf16-sm90-v1 leaves
// cpu-fp32-v1 for what a process computes beside its GPU. Errors as above.
Status ChooseKernelSet(const std::string& name, const std::string& origin);
// The name of the set that was chosen last.
const std::string& ChosenKernelSet();

// The chosen set, for a GPU. Error: kFailedPrecondition if GPUs do not compute it.
Result<DeviceKernelSet> ChosenDeviceSet();
// Whether the CPU computes the chosen set. Error: kFailedPrecondition.
Status CheckCpuComputes();

// What "auto" stands for in a run that starts here with weights of `type`: the set that is fastest
// on this CPU. Sets differ for bf16 weights alone; all else runs in cpu-fp32-v1.
kernels::KernelSet FastestKernelSet(kernels::WeightType type);

}  // namespace thresher::model
