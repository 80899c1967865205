#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "common/base/status.h"

namespace thresher::gpu {

// Blocks of memory that are kept when they are given back: cudaMalloc and cudaFree wait for the
// device. The logic alone, without CUDA: where blocks come from is a parameter. Thread-safe.
class MemoryPool {
 public:
  struct Source {
    // kResourceExhausted: no room, which Take answers by releasing what is kept.
    std::function<Result<void*>(std::size_t bytes)> allocate;
    std::function<void(void* block)> free;
  };
  struct Usage {
    std::size_t taken = 0;       // bytes that callers hold, rounded as they were allocated
    std::size_t kept = 0;        // bytes given back and kept
    std::size_t high_water = 0;  // the most that were ever taken and kept together
    std::uint64_t allocations = 0;
  };

  // limit: bytes that are taken and kept together at most; 0: what the source gives.
  explicit MemoryPool(Source source, std::size_t limit = 0);
  ~MemoryPool();  // every block must have been given back (checked)
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // A block of at least `bytes`, contents undefined; nullptr for 0. Errors: kResourceExhausted,
  // with what is asked for, taken and allowed; the source's.
  Result<void*> Take(std::size_t bytes);
  // A block that Take gave and that is not given back (checked); nullptr is nothing.
  void Give(void* block);
  // Returns what is kept to the source.
  void Release();
  Usage usage() const;

  // What a request is rounded up to: 512 bytes, then eighths of a power of two, so that at most an
  // eighth is wasted and blocks fit again.
  static std::size_t Rounded(std::size_t bytes);

 private:
  void ReleaseLocked();

  const Source source_;
  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::multimap<std::size_t, void*> kept_;  // by rounded size
  std::map<void*, std::size_t> taken_;
  Usage usage_;
};

}  // namespace thresher::gpu
