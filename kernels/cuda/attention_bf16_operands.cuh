#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_bf16_backward.h"

namespace thresher::kernels::cuda {

// What both forms of the backward pass read: rounded operands [T, heads, Dh], side by side, and of
// every query and head {lse log2(e), delta} [T, H].
struct GradOperands {
  std::uint16_t *q, *dout, *k, *v;
  float2* of_query;
  const std::int32_t* begin;  // of sequences
  float scale, c;             // c of the definition
  int heads, kv_heads, head_dim;
};

// Lays them out in the scratch memory and puts their making on the stream. Checks the arguments.
// sizes: delta is the sum of |dO_id out_id|.
cudaError_t MakeGradOperands(cudaStream_t stream, const AttentionBackwardArgs& args,
                             const Sequences& sequences, void* scratch, bool sizes,
                             GradOperands* operands);

}  // namespace thresher::kernels::cuda
