#include "tests/support/cuda_sim/device_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>

#include "tests/support/cuda_sim/cuda_sim.h"

namespace cuda_sim {
namespace {
constexpr std::size_t kPage = 4096;
constexpr std::size_t kAlignment = 16;  // the widest access of a thread
}  // namespace

void* DeviceMemory::Take(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (used_ + bytes > kDeviceBytes) return nullptr;
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t pages = (rounded + kPage) / kPage * kPage;
  void* room = mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return nullptr;
  const Piece piece{static_cast<char*>(room), pages, bytes};
  mprotect(piece.room + pages, kPage, PROT_NONE);
  char* data = piece.room + pages - rounded;
  std::memset(data, 0xcb, bytes);
  Protect(piece, open_);
  pieces_.emplace(data, piece);
  used_ += bytes;
  return data;
}

bool DeviceMemory::Give(void* data) {
  const std::lock_guard lock(mutex_);
  const auto at = pieces_.find(static_cast<const char*>(data));
  if (at == pieces_.end()) return false;
  munmap(at->second.room, at->second.room_bytes + kPage);
  used_ -= at->second.bytes;
  pieces_.erase(at);
  return true;
}

bool DeviceMemory::Holds(const void* data, std::size_t bytes) const {
  const std::lock_guard lock(mutex_);
  const auto* first = static_cast<const char*>(data);
  auto at = pieces_.upper_bound(first);
  if (at == pieces_.begin()) return false;
  --at;
  return first + bytes <= at->first + at->second.bytes;
}

std::size_t DeviceMemory::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

void DeviceMemory::Protect(const Piece& piece, bool open) const {
  mprotect(piece.room, piece.room_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void DeviceMemory::Open() {
  const std::lock_guard lock(mutex_);
  open_ = true;
  for (const auto& [data, piece] : pieces_) Protect(piece, true);
}

void DeviceMemory::Close() {
  const std::lock_guard lock(mutex_);
  open_ = false;
  for (const auto& [data, piece] : pieces_) Protect(piece, false);
}

}  // namespace cuda_sim
