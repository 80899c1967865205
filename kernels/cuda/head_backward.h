#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/head.h"

// The gradient of the head on a device, with the bits of kernels/cpu/head.h. All pointers of the
// arguments are device memory, packed images at multiples of 16 bytes. Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

// What the gradient of all logits of kVocabBlock ids takes, and what is best.
std::size_t HeadBackwardLeastScratchBytes(std::int64_t t);
std::size_t HeadBackwardScratchBytes(std::int64_t t, std::int64_t valid_vocab);

// As kernels::HeadBackward; a target outside [0, valid_vocab) is at no id. The vocabulary passes in
// parts as large as the scratch memory holds; their size changes no bit. cudaErrorInvalidValue:
// less than the least.
cudaError_t HeadBackward(cudaStream_t stream, const HeadBackwardArgs& args, void* scratch,
                         std::size_t scratch_bytes);

// For another product: logits [T, n] at ld of ids [v0, v0 + n) become the loss's gradient with
// respect to them, in place; 0 for ids at or beyond valid_vocab. Of `args` the products are not
// used.
cudaError_t HeadLogitGrads(cudaStream_t stream, const HeadBackwardArgs& args, std::int64_t v0,
                           std::int64_t n, float* logits, std::int64_t ld);

}  // namespace thresher::kernels::cuda
