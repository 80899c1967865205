#include "launch/gpu_load.h"

#include <algorithm>
#include <array>
#include <map>

#include "common/config/device.h"
#include "common/model/device_plan.h"
#include "launch/progress.h"

namespace thresher::launch {
namespace {

// A configuration has been checked: its devices can be parsed.
DeviceChoice ChoiceOf(const std::string& devices, const char* key) {
  auto choice = ParseDevices(devices, key);
  if (!choice.ok()) throw ConfigError(choice.status().message());
  return *choice;
}

std::string NameOf(const backend::Gpu& gpu) {
  return "cuda:" + std::to_string(gpu.index) + " (" + gpu.name + ", " + std::to_string(gpu.major) +
         "." + std::to_string(gpu.minor) + ", " + ShortBytes(double(gpu.total_bytes)) + ")";
}

void RequireThere(const std::string& devices, const char* key, const backend::Gpus& gpus) {
  const auto count = static_cast<int>(gpus.list.size());
  for (int index : ChoiceOf(devices, key).indices) {
    if (index < count) continue;
    throw ConfigError(std::string(key) + ": value '" + devices + "'; allowed: cuda:0 to cuda:" +
                      std::to_string(count - 1) + ", the GPUs that are here");
  }
}

void RequireSet(const std::string& set, const backend::Gpu& gpu) {
  if (model::DeviceKernelSetOf(set) != model::DeviceKernelSet::kBf16 || gpu.tensor_cores) return;
  throw ConfigError("engine.kernel_set: value '" + set + "'; allowed: cpu-fp32-v1 on " +
                    NameOf(gpu) +
                    "; it needs compute capability 9.0 and a build with kernels for 90a");
}

void RequireRoom(const GpuLoad& load, const backend::Gpu& gpu) {
  if (load.least <= gpu.total_bytes) return;
  throw ConfigError(NameOf(gpu) + ": " + std::to_string(load.actors) + " actors and " +
                    std::to_string(load.ranks) + " learner ranks need at least " +
                    ShortBytes(double(load.least)) +
                    " there; fewer processes a GPU, a smaller model.context, actors.max_batch or "
                    "learner.micro_batch_tokens, learner.recompute_activations or "
                    "learner.offload_optimizer take less");
}

// What the processes of one kind take of one GPU.
struct Share {
  int processes = 0;
  std::uint64_t least = 0, most = 0;
};

// turns: one of the two kinds at a time has its memory, the other only what CUDA takes.
GpuLoad LoadOf(int index, const Share& actors, const Share& ranks, bool turns) {
  const auto count = [](const Share& share) { return std::uint64_t(share.processes); };
  const auto together = [&](std::uint64_t a, std::uint64_t r) {
    if (!turns) return a + r;
    return std::max(a + count(ranks) * kCudaDeviceBytes, r + count(actors) * kCudaDeviceBytes);
  };
  return {index, actors.processes, ranks.processes, together(actors.least, ranks.least),
          together(actors.most, ranks.most)};
}

}  // namespace

std::vector<GpuLoad> LoadsOf(const Config& config, const RunEstimate& estimate, int gpu_count) {
  std::map<int, std::array<Share, 2>> shares;  // of actors and of ranks
  for (const ProcessEstimate& process : estimate.processes) {
    if (process.gpu_parts.empty()) continue;
    const bool actor = process.name == "actor";
    const DeviceChoice choice = actor ? ChoiceOf(config.actors.device, "actors.device")
                                      : ChoiceOf(config.learner.device, "learner.device");
    for (int i = 0; i < process.count; ++i) {
      Share& share = shares[choice.Of(i, gpu_count).index][actor ? 0 : 1];
      ++share.processes;
      share.least += process.gpu_least;
      share.most += process.GpuBytes();
    }
  }
  std::vector<GpuLoad> out;
  for (const auto& [index, of] : shares) {
    out.push_back(LoadOf(index, of[0], of[1], config.engine.colocated));
  }
  return out;
}

void RequireGpus(const Config& config, const RunEstimate& estimate, const backend::Gpus& gpus) {
  RequireThere(config.actors.device, "actors.device", gpus);
  RequireThere(config.learner.device, "learner.device", gpus);
  for (const GpuLoad& load : LoadsOf(config, estimate, static_cast<int>(gpus.list.size()))) {
    const backend::Gpu& gpu = gpus.list[static_cast<std::size_t>(load.index)];
    RequireSet(config.engine.kernel_set, gpu);
    RequireRoom(load, gpu);
  }
}

}  // namespace thresher::launch
