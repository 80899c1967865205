#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/simt.h"

namespace thresher::kernels::cuda {

// step(unit) for the units of this thread's group; the 16 threads of a group take it together.
template <class Step>
__device__ void ForEachUnitOfGroup(std::int64_t units, const Step& step) {
  const std::int64_t groups = std::int64_t{gridDim.x} * kGroups;
  std::int64_t unit = std::int64_t{blockIdx.x} * kGroups + threadIdx.x / 16;
  for (; unit < units; unit += groups) step(unit);
}

// The same for single threads.
template <class Step>
__device__ void ForEachUnitOfThread(std::int64_t units, const Step& step) {
  const std::int64_t threads = std::int64_t{gridDim.x} * blockDim.x;
  std::int64_t unit = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; unit < units; unit += threads) step(unit);
}

}  // namespace thresher::kernels::cuda
