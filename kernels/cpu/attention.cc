#include "kernels/cpu/attention.h"

#include <algorithm>

#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {
namespace {

void RequireHeads(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  Require(kv_heads > 0 && heads > 0 && heads % kv_heads == 0, "attention: heads");
  Require(head_dim > 0 && head_dim % 8 == 0 && head_dim <= kMaxHeadDim, "attention: head_dim");
}

}  // namespace

std::size_t KvPageFloats(std::int64_t kv_heads, std::int64_t head_dim) {
  return static_cast<std::size_t>(kv_heads * kKvPageSize * head_dim);
}

void WriteKv(std::int64_t t, std::int64_t kv_heads, std::int64_t head_dim, const float* k,
             std::int64_t ldk, const float* v, std::int64_t ldv,
             const std::int32_t* const* page_tables, const std::int32_t* positions,
             const KvPages& pages) {
  RequireHeads(kv_heads, kv_heads, head_dim);
  for (std::int64_t i = 0; i < t; ++i) {
    const std::int64_t slot = positions[i] % kKvPageSize;
    const std::size_t page = static_cast<std::size_t>(page_tables[i][positions[i] / kKvPageSize]);
    for (std::int64_t g = 0; g < kv_heads; ++g) {
      const std::size_t head =
          page * pages.page_stride_floats + static_cast<std::size_t>(g * kKvPageSize * head_dim);
      float* k_slot = pages.k_base + head + slot;
      const float* k_row = k + i * ldk + g * head_dim;
      for (std::int64_t d = 0; d < head_dim; ++d) k_slot[d * kKvPageSize] = k_row[d];
      std::copy_n(v + i * ldv + g * head_dim, head_dim, pages.v_base + head + slot * head_dim);
    }
  }
}

void ReadKv(std::int64_t kv_heads, std::int64_t head_dim, const std::int32_t* page_table,
            std::int64_t begin, std::int64_t end, const KvPages& pages, float* k, std::int64_t ldk,
            float* v, std::int64_t ldv) {
  RequireHeads(kv_heads, kv_heads, head_dim);
  for (std::int64_t position = begin; position < end; ++position, k += ldk, v += ldv) {
    const std::int64_t slot = position % kKvPageSize;
    const std::size_t page = static_cast<std::size_t>(page_table[position / kKvPageSize]);
    for (std::int64_t g = 0; g < kv_heads; ++g) {
      const std::size_t head =
          page * pages.page_stride_floats + static_cast<std::size_t>(g * kKvPageSize * head_dim);
      const float* k_slot = pages.k_base + head + slot;
      for (std::int64_t d = 0; d < head_dim; ++d) k[g * head_dim + d] = k_slot[d * kKvPageSize];
      std::copy_n(pages.v_base + head + slot * head_dim, head_dim, v + g * head_dim);
    }
  }
}

void Attention(std::int64_t t, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
               const float* q, std::int64_t ldq, const std::int32_t* const* page_tables,
               const std::int32_t* positions, float scale, const KvPages& pages, float* out,
               std::int64_t ldo, float* lse) {
  RequireHeads(heads, kv_heads, head_dim);
  Require(ldq >= heads * head_dim && ldo >= heads * head_dim, "Attention: ldq or ldo");
  const ScopedFpEnv env;
  ActiveTable().attention(t, heads, kv_heads, head_dim, q, ldq, page_tables, positions, scale,
                          pages, out, ldo, lse);
}

void AttentionBackward(const AttentionBackwardArgs& args) {
  RequireHeads(args.heads, args.kv_heads, args.head_dim);
  const ScopedFpEnv env;
  ActiveTable().attention_backward(args);
}

}  // namespace thresher::kernels
