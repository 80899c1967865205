#pragma once

#include <cstdint>

#include "kernels/cpu/weight_type.h"
#include "kernels/cuda/bf16_rows.h"

namespace thresher::model {

// W [N, K] of a linear layer on a device, in the form that its kernel set multiplies: packed panels
// and, with a backward pass, those of the transpose (cpu-fp32-v1), or bf16 rows
// (cuda-bf16-sm90-v1).
struct DeviceMatrix {
  std::int64_t n = 0, k = 0;
  kernels::PackedMatrix packed, transposed;
  kernels::cuda::Bf16Rows rows;
};

}  // namespace thresher::model
