#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kv_cache.h"
#include "kernels/cuda/simt.h"

// How the elements of a KV page are stored and read.
namespace thresher::kernels::cuda {

template <KvType kType>
struct KvStorage;

template <>
struct KvStorage<KvType::kF32> {
  using Element = float;
  using Wide = float4;  // values of one position
  using Keys = float;   // dimensions of one position's key that lie side by side
  static __device__ __forceinline__ float Widen(Element e) { return e; }
  static __device__ __forceinline__ Element Round(float x) { return x; }
  // Of a KV head's part of a page's K.
  static __device__ __forceinline__ std::int64_t KeyAt(std::int64_t slot, std::int64_t d) {
    return d * kKvPageSize + slot;
  }
};

template <>
struct KvStorage<KvType::kBf16> {
  using Element = std::uint16_t;
  using Wide = uint4;
  using Keys = uint4;
  static __device__ __forceinline__ float Widen(Element e) {
    return simt::FloatOf(static_cast<unsigned>(e) << 16);
  }
  static __device__ __forceinline__ Element Round(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Element>(bits >> 16 | 0x40u);  // NaN
    return static_cast<Element>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
  static __device__ __forceinline__ std::int64_t KeyAt(std::int64_t slot, std::int64_t d) {
    return (d / 8 * kKvPageSize + slot) * 8 + d % 8;
  }
};

// The elements of a wide access, widened.
THRESHER_DEVICE void Unpack(float wide, float (&out)[1]) { out[0] = wide; }
THRESHER_DEVICE void Unpack(float4 wide, float (&out)[4]) {
  out[0] = wide.x, out[1] = wide.y, out[2] = wide.z, out[3] = wide.w;
}
THRESHER_DEVICE void Unpack(uint4 wide, float (&out)[8]) {
  const unsigned words[4] = {wide.x, wide.y, wide.z, wide.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = simt::FloatOf(words[i] << 16);
    out[2 * i + 1] = simt::FloatOf(words[i] & 0xffff0000u);
  }
}

// Where a KV head's part of a page begins, in elements.
THRESHER_DEVICE std::size_t PartOfPage(const KvCache& kv, std::int32_t page, std::int64_t kv_head,
                                       std::int64_t head_dim) {
  return static_cast<std::size_t>(page) * kv.page_stride +
         static_cast<std::size_t>(kv_head * kKvPageSize * head_dim);
}

// The page ids of row t's sequence.
THRESHER_DEVICE const std::int32_t* TableOf(const PagedRows& rows, std::int64_t t) {
  return rows.table + rows.sequence[t] * rows.ld_table;
}

}  // namespace thresher::kernels::cuda
