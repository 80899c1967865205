#include "actor/engine/page_pool.h"

#include <algorithm>

namespace thresher::actor {

PagePool::PagePool(std::int32_t pages, bool sharing)
    : sharing_(sharing),
      allocator_(pages),
      cache_(pages),
      idle_at_(static_cast<std::size_t>(pages), idle_.end()) {}

void PagePool::Hold(std::int32_t page) {
  if (allocator_.holders(page) == 0) idle_.erase(idle_at_[static_cast<std::size_t>(page)]);
  allocator_.Share(page);
}

void PagePool::Drop(std::int32_t page) {
  if (!allocator_.Release(page)) return;
  if (cache_.Has(page)) {
    idle_at_[static_cast<std::size_t>(page)] = idle_.insert(idle_.end(), page);
  } else {
    allocator_.Free(page);
  }
}

std::int32_t PagePool::TakeOne() {
  if (allocator_.available() == 0) {
    const std::int32_t oldest = idle_.front();
    idle_.pop_front();
    cache_.Remove(oldest);
    allocator_.Free(oldest);
  }
  return allocator_.Take();
}

std::optional<PagePool::Start> PagePool::Begin(std::span<const std::int32_t> tokens,
                                               std::int32_t reserve, PageTable& table) {
  THRESHER_CHECK(table.pages.empty() && !tokens.empty(), "a table is begun once, with tokens");
  // The last token is processed in any case: its hidden state is wanted.
  PrefixCache::Match match;
  if (sharing_) match = cache_.Find(tokens.first(tokens.size() - 1));
  for (std::int32_t page : match.pages) Hold(page);
  const std::int32_t fresh =
      PagesFor(tokens.size()) - static_cast<std::int32_t>(match.pages.size());
  if (available() < fresh + reserve) {
    for (auto page = match.pages.rbegin(); page != match.pages.rend(); ++page) Drop(*page);
    return std::nullopt;
  }
  bool tail = match.tail_positions > 0;
  if (tail) {
    Hold(match.tail_page);  // not to be given away meanwhile
    if (available() < fresh) {
      Drop(match.tail_page);  // the pages that are left include this one
      tail = false;
    }
  }
  table.pages = match.pages;
  for (std::int32_t i = 0; i < fresh; ++i) table.pages.push_back(TakeOne());
  table.published = match.pages.size() * kPageSize;
  Start start{table.published, std::nullopt};
  if (tail) {
    start.positions += static_cast<std::size_t>(match.tail_positions);
    start.copy = {match.tail_page, table.pages[match.pages.size()]};
    Drop(match.tail_page);
  }
  return start;
}

bool PagePool::Extend(PageTable& table) {
  if (available() == 0) return false;
  table.pages.push_back(TakeOne());
  return true;
}

void PagePool::Publish(std::span<const std::int32_t> tokens, std::size_t positions,
                       PageTable& table) {
  if (!sharing_) return;
  while (table.published < positions) {
    const std::size_t index = table.published / kPageSize;
    const std::size_t begin = index * kPageSize;
    const std::size_t end = std::min(positions, begin + kPageSize);
    const std::int32_t parent = index == 0 ? PrefixCache::kNone : table.pages[index - 1];
    cache_.Put(table.pages[index], parent, tokens.subspan(begin, end - begin));
    table.published = end;
  }
}

void PagePool::Release(PageTable& table) {
  for (auto page = table.pages.rbegin(); page != table.pages.rend(); ++page) Drop(*page);
  table = PageTable{};
}

void PagePool::Clear() {
  THRESHER_CHECK(used() == 0, "the KV of running sequences cannot be forgotten");
  while (!idle_.empty()) {
    const std::int32_t oldest = idle_.front();
    idle_.pop_front();
    cache_.Remove(oldest);
    allocator_.Free(oldest);
  }
}

}  // namespace thresher::actor
