#pragma once

#include <cstddef>
#include <cstdint>

// Causal grouped-query attention over a paged KV cache. One function serves prefill, decode and the
// learner's forward, with the same bits. fp32. Letters: T rows, H heads, K KV heads (H a multiple
// of K; head h reads KV head h / (H / K)), Dh head dimension: a multiple of 8, at most 256.
//
// Pages hold kKvPageSize positions of one sequence for one layer. Within a page
//   K is [K][Dh][16]  (transposed: the scores of 16 positions are one vector, no horizontal sums),
//   V is [K][16][Dh].
// Page i's K begins at k_base + i * page_stride_floats, its V at v_base + i * page_stride_floats.
// 64-byte aligned bases and a stride that is a multiple of 16 are fastest; neither is required.
//
// Bits: the positions of a sequence are cut into splits of kAttentionSplit, counted from its
// position 0. Inside a split: score = (fma chain over d ascending) * scale; split maximum over
// positions <= p; weights exp(score - maximum), exactly +0 beyond p; their sum over 16 virtual
// lanes and a fixed tree; the weighted values one fma chain over positions ascending. Splits fold
// ascending by the online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867). Positions beyond a
// row's own p are never used, whatever lies there (NaN included).
namespace thresher::kernels {

inline constexpr std::int64_t kKvPageSize = 16;
inline constexpr std::int64_t kAttentionSplit = 64;  // part of the kernel set's identity
inline constexpr std::int64_t kMaxHeadDim = 256;

struct KvPages {
  float* k_base;
  float* v_base;
  std::size_t page_stride_floats;
};

// Floats of one page's K (and as many of its V): kv_heads * 16 * head_dim.
std::size_t KvPageFloats(std::int64_t kv_heads, std::int64_t head_dim);

// Stores row t's key and value at its position. k, v: [T, K, Dh], row t at k + t * ldk.
// page_tables[t]: page ids of row t's sequence, entry i for positions 16i..16i+15 (only the entry
// of positions[t] is read). positions: int32 [T], >= 0. Rows must not name the same slot twice.
void WriteKv(std::int64_t t, std::int64_t kv_heads, std::int64_t head_dim, const float* k,
             std::int64_t ldk, const float* v, std::int64_t ldv,
             const std::int32_t* const* page_tables, const std::int32_t* positions,
             const KvPages& pages);

// Reads back what WriteKv stored at positions [begin, end) of one sequence, into k, v: [end -
// begin, K, Dh]. For copying a partly filled page, saving a preempted sequence, and tests.
void ReadKv(std::int64_t kv_heads, std::int64_t head_dim, const std::int32_t* page_table,
            std::int64_t begin, std::int64_t end, const KvPages& pages, float* k, std::int64_t ldk,
            float* v, std::int64_t ldv);

// out[t, h] = softmax(scale * q[t, h] . k[0..p]) v[0..p], p = positions[t]. q, out: [T, H, Dh] with
// rows at ldq, ldo; out must not overlap q. lse: [T, H] log of the sum of exp(score), or nullptr.
// The KV of every position <= p must have been written. Rows of one sequence need not be
// adjacent or ordered; adjacent ascending rows that share one page_tables pointer run fastest.
// Inputs finite. Row-pure. Rows may be cut over threads.
void Attention(std::int64_t t, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
               const float* q, std::int64_t ldq, const std::int32_t* const* page_tables,
               const std::int32_t* positions, float scale, const KvPages& pages, float* out,
               std::int64_t ldo, float* lse);

// Backward pass of one whole sequence whose rows are positions 0..T-1, keys and values dense.
// q, out, dout, dq: [T, H, Dh]; k, v, dk, dv: [T, K, Dh]; lse: [T, H] from Attention.
// dq, dk, dv are overwritten. Each element is a fixed chain: dq over positions ascending in chunks
// of kGemmKChunk; dk and dv over (block of 64 queries, head of the group, query), all ascending.
// They depend on this sequence alone. Scratch: thread-local, O(T * Dh + 64 * T) floats.
struct AttentionBackwardArgs {
  std::int64_t t, heads, kv_heads, head_dim;
  const float* q;
  std::int64_t ldq;
  const float* k;
  std::int64_t ldk;
  const float* v;
  std::int64_t ldv;
  const float* out;
  std::int64_t ldo;
  const float* dout;
  std::int64_t lddo;
  const float* lse;
  float scale;
  float* dq;
  std::int64_t lddq;
  float* dk;
  std::int64_t lddk;
  float* dv;
  std::int64_t lddv;
};
void AttentionBackward(const AttentionBackwardArgs& args);

}  // namespace thresher::kernels
