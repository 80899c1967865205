#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention.h"

// The backward pass of attention over whole dense sequences on a device, with the bits of
// kernels/cpu/attention.h. Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

// The sequences of a batch: number s has rows [begin[s], begin[s + 1]), its positions 0, 1, ...
struct Sequences {
  std::int64_t count = 0;
  const std::int32_t* begin = nullptr;  // [count + 1], on the device
  std::int64_t max_length = 0;          // of the longest: the launch is made for it
};

std::size_t AttentionBackwardScratchBytes(std::int64_t t, std::int64_t heads);

// args: as on the CPU, but of all sequences' rows together (args.t = begin[count]); dq, dk and dv
// of a row depend on its sequence alone. scratch: AttentionBackwardScratchBytes(args.t,
// args.heads). cudaErrorInvalidValue: a shape that is not supported.
cudaError_t AttentionBackward(cudaStream_t stream, const AttentionBackwardArgs& args,
                              const Sequences& sequences, void* scratch);

}  // namespace thresher::kernels::cuda
