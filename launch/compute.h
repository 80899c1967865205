#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/sync/worker_pool.h"

namespace thresher::launch {

// What a command computes with.
struct ComputeOptions {
  int threads = 0;                  // 0: one for each processor this process may use
  std::vector<int> cpus;            // threads are pinned to them; empty: not pinned
  std::string kernels = "auto";     // variant: auto, portable, avx2, avx512, ...
  std::string kernel_set = "auto";  // auto: that of the model's run, else cpu-fp32-v1
};

// The processors this process may use.
std::vector<int> AllowedCpus();

// Chooses variant and kernel set for the process, which will compute with `model` (FindModel), and
// makes its threads; pins the calling thread too when asked. Errors: kInvalidArgument naming the
// option, what was found and what is allowed; those of KernelSetOf.
Result<std::unique_ptr<WorkerPool>> SetUpCompute(const ComputeOptions& options,
                                                 const std::string& model);

}  // namespace thresher::launch
