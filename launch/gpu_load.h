#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/backend/gpus.h"
#include "launch/estimate.h"

namespace thresher::launch {

// What a run puts on one GPU, in bytes.
struct GpuLoad {
  int index = 0;
  int actors = 0, ranks = 0;
  std::uint64_t least = 0;  // without which its processes do not start
  std::uint64_t most = 0;   // with all that they would use
};

// By GPU, ascending; those that the configuration names, or of gpu_count (at least 1) those that it
// uses. Pure.
std::vector<GpuLoad> LoadsOf(const Config& config, const RunEstimate& estimate, int gpu_count);

// Throws ConfigError for what shows beforehand that a run cannot work on the GPUs that are here: a
// GPU that is not there, a kernel set that one cannot compute, processes that do not fit together.
// gpus.list is not empty.
void RequireGpus(const Config& config, const RunEstimate& estimate, const backend::Gpus& gpus);

}  // namespace thresher::launch
