#pragma once

// The 16-lane vector of kernels/cpu with a lane a thread, and its exp and log: cuda_lanes::F16.
// ExpV and LogV exchange nothing, so a thread may call them alone, on a value of its own.
#define THRESHER_VARIANT cuda_lanes
#define THRESHER_VEC_SIMT
#include "kernels/cpu/math.inl"

namespace thresher::kernels::cuda {

THRESHER_DEVICE float Exp(float x) { return cuda_lanes::ExpScalar(x); }
THRESHER_DEVICE float Log(float x) { return cuda_lanes::LogScalar(x); }

}  // namespace thresher::kernels::cuda
