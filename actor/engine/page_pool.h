#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "actor/engine/page_allocator.h"
#include "actor/engine/prefix_cache.h"
#include "common/model/step_runner.h"

namespace thresher::actor {

// The pages of one sequence: entry i holds positions 16 i to 16 i + 15.
struct PageTable {
  std::vector<std::int32_t> pages;
  std::size_t published = 0;  // positions that others may share
};

using model::PageCopy;  // made before the next forward pass

// KV pages with prefix sharing. A whole page that holds the tokens a sequence begins with is shared
// by reference; one that holds them in part is copied for it (the sequence is about to write
// there). A page is written only by the sequence that took it, and only behind what it published.
// Pages that nobody holds any more are kept for their content and used again when no page is free,
// the longest unused first. One owner, not thread-safe.
class PagePool {
 public:
  // sharing false: every sequence computes everything itself.
  PagePool(std::int32_t pages, bool sharing);

  std::int32_t pages() const { return allocator_.pages(); }
  // Pages that can be had: free ones and those kept.
  std::int32_t available() const { return allocator_.available() + retained(); }
  std::int32_t retained() const { return static_cast<std::int32_t>(idle_.size()); }
  std::int32_t shared() const { return allocator_.shared(); }
  std::int32_t used() const { return pages() - available(); }

  struct Start {
    std::size_t positions = 0;  // keys and values that are there; less than the tokens
    std::optional<PageCopy> copy;
  };
  // Fills an empty table with pages for `tokens` (at least one). Nothing, and no change, if fewer
  // than `reserve` pages could be had afterwards. Copies are to be made in the order of calls.
  std::optional<Start> Begin(std::span<const std::int32_t> tokens, std::int32_t reserve,
                             PageTable& table);
  // One page more at the end. False: there is none.
  bool Extend(PageTable& table);
  // The first `positions` of `tokens` have been computed into the table's pages: from now on
  // others may share them.
  void Publish(std::span<const std::int32_t> tokens, std::size_t positions, PageTable& table);
  // Gives the pages back and empties the table.
  void Release(PageTable& table);
  // Forgets every content: the weights change. Nobody holds a page (checked).
  void Clear();

 private:
  void Hold(std::int32_t page);
  void Drop(std::int32_t page);
  std::int32_t TakeOne();  // there must be one

  bool sharing_;
  PageAllocator allocator_;
  PrefixCache cache_;
  // Known pages that nobody holds. A page is released before the one it follows, so the front has
  // no known successor.
  std::list<std::int32_t> idle_;
  std::vector<std::list<std::int32_t>::iterator> idle_at_;  // by page
};

}  // namespace thresher::actor
