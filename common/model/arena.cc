#include "common/model/arena.h"

#include <sys/mman.h>

#include <cstdint>
#include <utility>

#include "common/base/check.h"

namespace thresher::model {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

Arena::Arena(void* mapping, std::size_t mapped, std::size_t room)
    : mapping_(mapping), mapped_(mapped), base_(static_cast<std::byte*>(mapping)), room_(room) {
  if (room < kHugePage) return;
  base_ += -reinterpret_cast<std::uintptr_t>(mapping) % kHugePage;
  (void)madvise(base_, room, MADV_HUGEPAGE);  // a wish: small pages do as well
}

Result<Arena> Arena::Make(std::size_t bytes) {
  const std::size_t mapped = bytes + kHugePage;  // to begin at an aligned address
  void* mapping = mapped < bytes ? MAP_FAILED
                                 : mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    return ResourceExhausted("no memory for weights of " + std::to_string(bytes) + " bytes");
  }
  return Arena(mapping, mapped, bytes);
}

Arena::Arena(Arena&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_(other.mapped_),
      base_(other.base_),
      room_(std::exchange(other.room_, 0)),
      used_(other.used_) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  std::swap(base_, other.base_);
  std::swap(room_, other.room_);
  std::swap(used_, other.used_);
  return *this;
}

Arena::~Arena() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

std::byte* Arena::Take(std::size_t bytes) {
  const std::size_t rounded = Rounded(bytes);
  THRESHER_CHECK(rounded <= room_ - used_, "arena: more than there is room for");
  std::byte* piece = base_ + used_;
  used_ += rounded;
  return piece;
}

}  // namespace thresher::model
