#include "actor/engine/page_allocator.h"

namespace thresher::actor {

PageAllocator::PageAllocator(std::int32_t pages) : pages_(pages) {
  for (std::int32_t i = pages; i > 0; --i) free_.push_back(i - 1);
}

Result<std::vector<std::int32_t>> PageAllocator::Take(std::int32_t count) {
  if (count > available()) {
    return ResourceExhausted("KV cache: " + std::to_string(count) + " pages wanted, " +
                             std::to_string(available()) + " of " + std::to_string(pages_) +
                             " free");
  }
  std::vector<std::int32_t> taken(free_.end() - count, free_.end());
  free_.resize(free_.size() - static_cast<std::size_t>(count));
  return taken;
}

void PageAllocator::Give(const std::vector<std::int32_t>& pages) {
  for (std::int32_t page : pages) {
    THRESHER_CHECK(page >= 0 && page < pages_, "a page id that was never handed out");
    free_.push_back(page);
  }
  THRESHER_CHECK(available() <= pages_, "more pages given back than taken");
}

}  // namespace thresher::actor
