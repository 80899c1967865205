#pragma once

#include <cstddef>

#include "common/base/status.h"

namespace thresher::model {

// Floats that are zero and take memory only where they have been written, a page at a time: room
// for the largest case costs nothing until it comes. Move-only.
class ZeroPages {
 public:
  ZeroPages() = default;
  // Error: kResourceExhausted (more than the address space or the system's overcommit rule gives).
  static Result<ZeroPages> Make(std::size_t floats);
  ZeroPages(ZeroPages&& other) noexcept;
  ZeroPages& operator=(ZeroPages&& other) noexcept;
  ~ZeroPages();

  float* data() { return data_; }
  const float* data() const { return data_; }

 private:
  ZeroPages(float* data, std::size_t bytes) : data_(data), bytes_(bytes) {}

  float* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace thresher::model
