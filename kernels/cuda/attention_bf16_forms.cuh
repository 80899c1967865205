#pragma once

#include "kernels/cuda/attention_bf16.h"

namespace thresher::kernels::cuda {

// c of the definition.
inline float Bf16AttentionScale(float scale) { return scale * 1.44269504f; }

// The forms, with arguments that have been checked. `scale`: c.
cudaError_t AttentionBf16Rows(cudaStream_t stream, const AttentionArgs& args, float scale);
// columns: 8, 16, 32 or 64; scratch: AttentionScratchBytes.
cudaError_t AttentionBf16Splits(cudaStream_t stream, const AttentionArgs& args, float scale,
                                int columns, void* scratch);

}  // namespace thresher::kernels::cuda
