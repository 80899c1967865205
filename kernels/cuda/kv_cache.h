#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention.h"

// The paged KV cache on a device. Pages hold kKvPageSize positions of one sequence for one layer,
// as in kernels/cpu/attention.h. Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

// What keys and values are stored as. kBf16 rounds them to nearest, ties to even, when they are
// written; whatever reads them computes in fp32.
enum class KvType : std::uint8_t { kF32, kBf16 };

constexpr std::size_t KvElementBytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// Page i's K begins at k + i * page_stride elements, its V at v + i * page_stride. Within a page
//   kF32   K is [K][Dh][16], V is [K][16][Dh]: the layout of the CPU;
//   kBf16  K is [K][Dh/8][16][8], V is [K][16][Dh]: eight dimensions of a position are 16 bytes,
//   the
//          widest access of a thread, so a decode step that streams a page reads whole lines of it
//          in as few instructions as there can be, and a position is written in such pieces.
// k, v and page_stride * KvElementBytes(type) are multiples of 16 bytes.
struct KvCache {
  KvType type = KvType::kF32;
  void* k = nullptr;
  void* v = nullptr;
  std::size_t page_stride = 0;
};

// The rows of a batch, all of it on the device: row t is position[t] of the sequence whose page ids
// are table[sequence[t] * ld_table ...], entry i for positions 16i..16i+15. Rows of one sequence
// that are adjacent are fastest; neither that nor an order is required. A row with a position below
// 0 is padding: it is read by nobody, and nothing is written for it.
struct PagedRows {
  std::int64_t t = 0;
  const std::int32_t* position = nullptr;  // [T]
  const std::int32_t* table = nullptr;     // [S, ld_table]
  std::int64_t ld_table = 0;
  const std::int32_t* sequence = nullptr;  // [T]
};

// Stores row t's key and value at its position. k, v: [T, K, Dh] at ldk, ldv. head_dim: a multiple
// of 8. Rows must not name the same slot twice.
cudaError_t WriteKv(cudaStream_t stream, const PagedRows& rows, std::int64_t kv_heads,
                    std::int64_t head_dim, const float* k, std::int64_t ldk, const float* v,
                    std::int64_t ldv, const KvCache& kv);

// Reads back what WriteKv stored for the rows, into k, v: [T, K, Dh].
cudaError_t ReadKv(cudaStream_t stream, const PagedRows& rows, std::int64_t kv_heads,
                   std::int64_t head_dim, const KvCache& kv, float* k, std::int64_t ldk, float* v,
                   std::int64_t ldv);

// Copies whole pages, K and V, of all layers: pairs[2i] to pairs[2i + 1] (on the device; a pair
// with an id below 0 is passed over). Layer l's pages are at kv.k + l * layer_stride elements, kv.v
// likewise (layer_stride: a multiple of 16 bytes too). No page is written by two pairs, nor by one
// pair and read by another.
cudaError_t CopyPages(cudaStream_t stream, std::int64_t count, const std::int32_t* pairs,
                      std::int64_t layers, std::size_t layer_stride, std::int64_t kv_heads,
                      std::int64_t head_dim, const KvCache& kv);

}  // namespace thresher::kernels::cuda
