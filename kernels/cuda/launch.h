#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// How a kernel over independent units of work is started: a group of 16 threads for each, eight
// groups a block, and a loop over the rest.
namespace thresher::kernels::cuda {

inline constexpr int kGroups = 8;            // of a block
inline constexpr int kBlock = 16 * kGroups;  // threads
inline constexpr std::int64_t kMaxBlocks = 1 << 16;

inline unsigned BlocksFor(std::int64_t units, std::int64_t per_block) {
  const std::int64_t blocks = (units + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

}  // namespace thresher::kernels::cuda
