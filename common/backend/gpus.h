#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace thresher::backend {

// A GPU that the driver shows this process.
struct Gpu {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  std::size_t total_bytes = 0;
  bool tensor_cores = false;  // this build's cuda-bf16-sm90-v1 is for its like
};

// What there is for GPUs here.
struct Gpus {
  std::string architectures;    // that this build has kernels for, "80, 90a"; empty: none is built
  std::string runtime, driver;  // CUDA's versions, "13.0"; empty: none
  Status status;                // why `list` is empty: no CUDA in this build, no driver, too old
  std::vector<Gpu> list;
};

// Looks, and takes nothing of any device.
Gpus FindGpus();

}  // namespace thresher::backend
