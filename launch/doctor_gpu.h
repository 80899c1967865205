#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/backend/gpus.h"
#include "launch/doctor.h"

namespace thresher::launch {

// What was seen of GPUs beside CUDA itself.
struct GpuSigns {
  std::string smi;      // first line of nvidia-smi: name, memory, driver; empty: it does not answer
  bool driver = false;  // the kernel has a driver loaded
};

// First what there is as a whole ("GPU"), then each GPU, then the tensor-core kernel set. open:
// whether a GPU can be used, as backend::CheckDevice says.
std::vector<Finding> GpuFindings(const backend::Gpus& gpus, const GpuSigns& signs,
                                 const std::function<Status(int index)>& open);

// The library of this process's NCCL, which is loaded for it. gpus: how many there are; with one
// alone nothing needs NCCL.
Finding NcclFinding(std::size_t gpus);

}  // namespace thresher::launch
