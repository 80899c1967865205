#pragma once

#include <chrono>
#include <cstddef>

#include "common/base/status.h"

struct CUstream_st;  // what cudaStream_t points to

namespace thresher::comm {

// What the NCCL communicator needs of its device: one stream of its own, memory to pass host data
// through, and an addition. A seam: tests put the host in its place. One thread.
class DevicePort {
 public:
  // Frees everything; the stream's work must have ended.
  virtual ~DevicePort() = default;

  // Equally long pieces of pinned host memory and device memory, contents undefined, kept until the
  // port ends or Return takes them back.
  struct Staging {
    std::byte* host = nullptr;
    std::byte* device = nullptr;
    std::size_t bytes = 0;
  };
  // Error: kResourceExhausted.
  virtual Result<Staging> MakeStaging(std::size_t bytes) = 0;
  // A piece that no queued work uses.
  virtual void Return(const Staging& staging) = 0;

  virtual CUstream_st* stream() = 0;
  // The rest puts work on that stream and does not wait. Errors: the device's (kAborted: lost).
  // `pinned` is part of a Staging.
  virtual Status ToDevice(std::byte* device, const std::byte* pinned, std::size_t bytes) = 0;
  virtual Status ToHost(std::byte* pinned, const std::byte* device, std::size_t bytes) = 0;
  // sum[i] = sum[i] + other[i], or other[i] + sum[i] if `other_first`; device memory, fp32.
  virtual Status Add(float* sum, const float* other, std::size_t count, bool other_first) = 0;
  // What follows waits for what is queued on `other` so far.
  virtual Status WaitFor(CUstream_st* other) = 0;

  // Remembers how far the stream is filled; Reached: whether the device has done all of that.
  virtual Status Mark() = 0;
  virtual Result<bool> Reached() = 0;
  // Copies beside the stream, which may be stuck. kDeadlineExceeded after `patience`.
  virtual Status Peek(std::byte* pinned, const std::byte* device, std::size_t bytes,
                      std::chrono::milliseconds patience) = 0;
};

}  // namespace thresher::comm
