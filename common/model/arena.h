#pragma once

#include <cstddef>

#include "common/base/status.h"

namespace thresher::model {

// One stretch of memory that is handed out piece by piece and freed as a whole: all weights of a
// model side by side. Large ones ask for huge pages, which products stream through faster. What is
// never handed out is not backed (but for the rest of the last page). Move-only; not thread-safe.
class Arena {
 public:
  static constexpr std::size_t kAlignment = 64;  // of every piece: a cache line, a vector

  // Room for pieces of `bytes` in all, each counted as Rounded. Error: kResourceExhausted.
  static Result<Arena> Make(std::size_t bytes);
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  // `bytes` with undefined contents. More than there is room for ends the process.
  std::byte* Take(std::size_t bytes);
  static std::size_t Rounded(std::size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  // Takes all pieces back: what they held is undefined.
  void Clear() { used_ = 0; }
  std::size_t room() const { return room_; }
  const std::byte* data() const { return base_; }  // of the first piece; the others follow
  std::size_t used_bytes() const { return used_; }

 private:
  Arena(void* mapping, std::size_t mapped, std::size_t room);

  void* mapping_;
  std::size_t mapped_;
  std::byte* base_;
  std::size_t room_;
  std::size_t used_ = 0;
};

}  // namespace thresher::model
