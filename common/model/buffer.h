#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace thresher::model {

// Storage on cache-line (and vector) boundaries: what the kernels run fastest on.
template <typename T>
struct CacheAlignedAllocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{64};
  CacheAlignedAllocator() = default;
  template <typename U>
  CacheAlignedAllocator(const CacheAlignedAllocator<U>&) {}
  T* allocate(std::size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), kAlignment));
  }
  void deallocate(T* pointer, std::size_t) { ::operator delete(pointer, kAlignment); }
  bool operator==(const CacheAlignedAllocator&) const { return true; }
};

using AlignedFloats = std::vector<float, CacheAlignedAllocator<float>>;

// At least `count` floats of scratch, whose contents are undefined; grows and never shrinks.
inline float* Reserve(AlignedFloats& buffer, std::size_t count) {
  if (buffer.size() < count) buffer.resize(count);
  return buffer.data();
}

}  // namespace thresher::model
