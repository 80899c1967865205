#include "common/gpu/memory_pool.h"

#include <algorithm>
#include <bit>
#include <string>

#include "common/base/check.h"

namespace thresher::gpu {
namespace {

constexpr std::size_t kGranule = 512;

}  // namespace

std::size_t MemoryPool::Rounded(std::size_t bytes) {
  if (bytes <= kGranule) return kGranule;
  const std::size_t step = std::max(kGranule, std::bit_floor(bytes - 1) / 8);
  return (bytes + step - 1) / step * step;
}

MemoryPool::MemoryPool(Source source, std::size_t limit)
    : source_(std::move(source)), limit_(limit) {}

MemoryPool::~MemoryPool() {
  THRESHER_CHECK(taken_.empty(), "a memory pool ends while blocks of it are held");
  ReleaseLocked();
}

Result<void*> MemoryPool::Take(std::size_t bytes) {
  if (bytes == 0) return static_cast<void*>(nullptr);
  const std::size_t size = Rounded(bytes);
  const std::lock_guard lock(mutex_);
  if (auto found = kept_.find(size); found != kept_.end()) {
    void* block = found->second;
    kept_.erase(found);
    usage_.kept -= size;
    usage_.taken += size;
    taken_.emplace(block, size);
    return block;
  }
  const auto exceeds = [&] { return limit_ != 0 && usage_.taken + usage_.kept + size > limit_; };
  if (exceeds()) ReleaseLocked();
  if (exceeds()) {
    return ResourceExhausted("memory pool: asked for " + std::to_string(size) + " bytes with " +
                             std::to_string(usage_.taken) +
                             " taken; allowed: " + std::to_string(limit_) + " together");
  }
  auto block = source_.allocate(size);
  if (!block.ok() && block.status().code() == StatusCode::kResourceExhausted && usage_.kept > 0) {
    ReleaseLocked();
    block = source_.allocate(size);
  }
  if (!block.ok()) return block.status();
  ++usage_.allocations;
  usage_.taken += size;
  usage_.high_water = std::max(usage_.high_water, usage_.taken + usage_.kept);
  taken_.emplace(*block, size);
  return *block;
}

void MemoryPool::Give(void* block) {
  if (block == nullptr) return;
  const std::lock_guard lock(mutex_);
  const auto found = taken_.find(block);
  THRESHER_CHECK(found != taken_.end(), "a block that the memory pool did not give");
  const std::size_t size = found->second;
  taken_.erase(found);
  usage_.taken -= size;
  usage_.kept += size;
  kept_.emplace(size, block);
}

void MemoryPool::Release() {
  const std::lock_guard lock(mutex_);
  ReleaseLocked();
}

void MemoryPool::ReleaseLocked() {
  for (const auto& [size, block] : kept_) source_.free(block);
  kept_.clear();
  usage_.kept = 0;
}

MemoryPool::Usage MemoryPool::usage() const {
  const std::lock_guard lock(mutex_);
  return usage_;
}

}  // namespace thresher::gpu
