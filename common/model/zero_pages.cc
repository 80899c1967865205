#include "common/model/zero_pages.h"

#include <sys/mman.h>

#include <limits>
#include <string>
#include <utility>

namespace thresher::model {

Result<ZeroPages> ZeroPages::Make(std::size_t floats) {
  if (floats == 0) return ZeroPages();
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max() / sizeof(float);
  void* mapping = floats > kMost ? MAP_FAILED
                                 : mmap(nullptr, floats * sizeof(float), PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return ResourceExhausted("no room for " + std::to_string(floats) + " floats");
  }
  return ZeroPages(static_cast<float*>(mapping), floats * sizeof(float));
}

ZeroPages::ZeroPages(ZeroPages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

ZeroPages& ZeroPages::operator=(ZeroPages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ZeroPages::~ZeroPages() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace thresher::model
