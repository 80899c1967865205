#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actor/engine/engine.h"
#include "common/base/status.h"
#include "common/sync/worker_pool.h"
#include "launch/policy.h"

namespace thresher::launch {

// What a command computes with.
struct ComputeOptions {
  int threads = 0;                  // 0: one for each processor this process may use
  std::vector<int> cpus;            // threads are pinned to them; empty: not pinned
  std::string kernels = "auto";     // variant: auto, portable, avx2, avx512, ...
  std::string kernel_set = "auto";  // auto: that of the model's run, else cpu-fp32-v1
  std::string device = "auto";      // cpu, cuda, cuda:N; auto: see ChooseDevice
};

// The processors this process may use.
std::vector<int> AllowedCpus();

// Chooses variant and kernel set for the process, which will compute with `model` (FindModel), and
// makes its threads; pins the calling thread too when asked. Errors: kInvalidArgument naming the
// option, what was found and what is allowed; those of KernelSetOf.
Result<std::unique_ptr<WorkerPool>> SetUpCompute(const ComputeOptions& options,
                                                 const std::string& model);

// What `name` means once the kernel set has been chosen: "cpu", "cuda" (the first GPU), "cuda:N",
// or "auto": the first GPU for a set that GPUs alone compute, else the CPU. Errors, beginning with
// `origin`: kInvalidArgument (none of these); those of backend::CheckDevice; kFailedPrecondition (a
// set that the device does not compute).
Result<Device> ChooseDevice(const std::string& name, const std::string& origin);

// An engine on the options' device that has the policy's weights. `pool` is borrowed. Errors: those
// of ChooseDevice, actor::MakeEngine and Engine::SetWeights.
Result<actor::Engine> MakeEngine(const ComputeOptions& options, WorkerPool& pool,
                                 const LoadedPolicy& policy,
                                 const actor::EngineOptions& engine_options);

}  // namespace thresher::launch
