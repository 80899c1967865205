#include "actor/engine/page_allocator.h"

#include <utility>

namespace thresher::actor {

PageAllocator::PageAllocator(std::int32_t pages) {
  THRESHER_CHECK(pages >= 0, "a KV cache of negative size");
  holders_.assign(static_cast<std::size_t>(pages), kFree);
  for (std::int32_t i = pages; i > 0; --i) free_.push_back(i - 1);
}

const std::int32_t& PageAllocator::At(std::int32_t page) const {
  THRESHER_CHECK(page >= 0 && page < pages(), "no such KV page");
  return holders_[static_cast<std::size_t>(page)];
}

std::int32_t& PageAllocator::At(std::int32_t page) {
  return const_cast<std::int32_t&>(std::as_const(*this).At(page));
}

std::int32_t PageAllocator::Take() {
  THRESHER_CHECK(!free_.empty(), "no KV page is free");
  const std::int32_t page = free_.back();
  free_.pop_back();
  At(page) = 1;
  return page;
}

void PageAllocator::Share(std::int32_t page) {
  std::int32_t& holders = At(page);
  THRESHER_CHECK(holders != kFree, "a free KV page cannot be shared");
  if (++holders == 2) ++shared_;
}

bool PageAllocator::Release(std::int32_t page) {
  std::int32_t& holders = At(page);
  THRESHER_CHECK(holders > 0, "nobody holds this KV page");
  if (holders-- == 2) --shared_;
  return holders == 0;
}

void PageAllocator::Free(std::int32_t page) {
  std::int32_t& holders = At(page);
  THRESHER_CHECK(holders == 0, "only an idle KV page can be made free");
  holders = kFree;
  free_.push_back(page);
}

}  // namespace thresher::actor
