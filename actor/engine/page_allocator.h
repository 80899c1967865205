#pragma once

#include <cstdint>
#include <vector>

#include "common/base/check.h"

namespace thresher::actor {

// Hands out the page ids of a KvCache and counts who holds each. A page is free, held (by one
// holder or several), or idle: nobody holds it, but its content is kept. Which id a sequence gets
// never changes a bit of its results (row purity). One owner, not thread-safe. A page in the wrong
// state is a bug (checked).
class PageAllocator {
 public:
  explicit PageAllocator(std::int32_t pages);

  std::int32_t pages() const { return static_cast<std::int32_t>(holders_.size()); }
  std::int32_t available() const { return static_cast<std::int32_t>(free_.size()); }  // free ones
  std::int32_t shared() const { return shared_; }  // held more than once
  std::int32_t holders(std::int32_t page) const { return At(page); }

  // A free page, for one holder. There must be one.
  std::int32_t Take();
  // One holder more of a page that is held or idle.
  void Share(std::int32_t page);
  // One holder fewer. True when that was the last: the page is idle then.
  [[nodiscard]] bool Release(std::int32_t page);
  // Makes an idle page free.
  void Free(std::int32_t page);

 private:
  static constexpr std::int32_t kFree = -1;
  const std::int32_t& At(std::int32_t page) const;
  std::int32_t& At(std::int32_t page);

  std::vector<std::int32_t> holders_;  // by page: kFree, 0 (idle), or how many
  std::vector<std::int32_t> free_;     // the last one goes first
  std::int32_t shared_ = 0;
};

}  // namespace thresher::actor
