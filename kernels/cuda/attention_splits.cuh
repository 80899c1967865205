#pragma once

#include "kernels/cuda/attention.h"

namespace thresher::kernels::cuda {

// AttentionForm::kSplits, with arguments that have been checked. scratch: AttentionScratchBytes.
cudaError_t AttentionSplits(cudaStream_t stream, const AttentionArgs& args, void* scratch);

}  // namespace thresher::kernels::cuda
