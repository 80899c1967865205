#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "common/base/status.h"

namespace thresher::gpu {

// What an error of the CUDA runtime means for whoever made the call.
enum class ErrorKind {
  kNone,
  kOutOfMemory,  // this request was too large; the device goes on working
  kDeviceLost,   // the context is gone with everything in it: the process has to start anew
  kNoDriver,     // no driver, or one too old for this build
  kBusy,         // another process has the device for itself
  kNotBuiltFor,  // the kernels of this build do not run on the device
  kOther,
};
ErrorKind KindOf(cudaError_t error);

// OK, or the error with the name of the call and CUDA's own text: kResourceExhausted (out of
// memory), kAborted (device lost), kFailedPrecondition (driver, architecture), kUnavailable (busy),
// kInternal. `what`: what was asked for, "cudaMalloc of 1.5 GiB".
Status ToStatus(cudaError_t error, const std::string& what);

}  // namespace thresher::gpu
