#pragma once

#include <cstdint>
#include <vector>

#include "common/base/status.h"

namespace thresher::actor {

// Hands out page ids of a KvCache. Which id a sequence gets never changes a bit of its results
// (row purity). One owner, not thread-safe.
class PageAllocator {
 public:
  explicit PageAllocator(std::int32_t pages);
  std::int32_t available() const { return static_cast<std::int32_t>(free_.size()); }
  // `count` page ids. Error: kResourceExhausted; nothing is taken then.
  Result<std::vector<std::int32_t>> Take(std::int32_t count);
  void Give(const std::vector<std::int32_t>& pages);

 private:
  std::int32_t pages_;
  std::vector<std::int32_t> free_;
};

}  // namespace thresher::actor
