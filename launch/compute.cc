#include "launch/compute.h"

#include <sched.h>

#include <algorithm>

#include "common/backend/backend.h"
#include "common/model/kernel_choice.h"
#include "kernels/cpu/fpenv.h"
#include "launch/policy.h"

namespace thresher::launch {
namespace {

// Pins the calling thread, which is the pool's thread 0.
Status Pin(const std::vector<int>& cpus) {
  const std::vector<int> allowed = AllowedCpus();
  for (int cpu : cpus) {
    if (std::find(allowed.begin(), allowed.end(), cpu) != allowed.end()) continue;
    std::string list;
    for (int other : allowed) list += (list.empty() ? "" : ",") + std::to_string(other);
    return InvalidArgument("--cpus " + std::to_string(cpu) + "; allowed: " + list);
  }
  return PinThisThread(cpus[0]);
}

}  // namespace

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

Result<std::unique_ptr<WorkerPool>> SetUpCompute(const ComputeOptions& options,
                                                 const std::string& model_name) {
  THRESHER_RETURN_IF_ERROR(model::ChooseCpuVariant(options.kernels, "--kernels"));
  std::string kernel_set = options.kernel_set;
  if (kernel_set == "auto") {
    THRESHER_ASSIGN_OR_RETURN(kernel_set, KernelSetOf(model_name));
  }
  THRESHER_RETURN_IF_ERROR(model::ChooseKernelSet(kernel_set, "--kernel-set"));
  WorkerPoolOptions pool;
  pool.threads = options.threads > 0 ? options.threads : static_cast<int>(AllowedCpus().size());
  pool.on_start = [] { kernels::PinFpEnv(); };
  pool.name = "engine";
  if (!options.cpus.empty()) {
    pool.cpus = options.cpus;
    THRESHER_RETURN_IF_ERROR(Pin(options.cpus));
  }
  return std::make_unique<WorkerPool>(std::move(pool));
}

Result<Device> ChooseDevice(const std::string& name, const std::string& origin) {
  Device device;
  if (name == "auto") {
    if (!model::CheckCpuComputes().ok()) device.kind = DeviceKind::kCuda;
  } else {
    const auto choice = ParseDevices(name, origin);
    if (!choice.ok() || choice->indices.size() > 1) {
      return InvalidArgument(origin + " is '" + name + "'; allowed: auto, cpu, cuda, cuda:N");
    }
    device = choice->Of(0, 1);
  }
  const auto named = [&](const Status& status) {
    return status.ok() ? status : status.WithContext(origin + " " + name);
  };
  const Status computes = device.kind == DeviceKind::kCpu ? model::CheckCpuComputes()
                                                          : model::ChosenDeviceSet().status();
  THRESHER_RETURN_IF_ERROR(named(computes));
  THRESHER_RETURN_IF_ERROR(named(backend::CheckDevice(device)));
  return device;
}

Result<actor::Engine> MakeEngine(const ComputeOptions& options, WorkerPool& pool,
                                 const LoadedPolicy& policy,
                                 const actor::EngineOptions& engine_options) {
  THRESHER_ASSIGN_OR_RETURN(const Device device, ChooseDevice(options.device, "--device"));
  THRESHER_ASSIGN_OR_RETURN(
      auto engine, actor::MakeEngine(policy.weights->config(), engine_options, device, &pool));
  THRESHER_RETURN_IF_ERROR(
      engine.SetWeights(policy.weights, PolicyVersion{0, policy.step.value_or(0)}));
  return engine;
}

}  // namespace thresher::launch
