#pragma once

// Paged causal attention. Queries that read the same keys (adjacent rows of one sequence, the heads
// of one group) are worked on together, MQ at a time; what each computes does not depend on it.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/math.inl"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

inline constexpr std::int64_t kSplitPages = kAttentionSplit / kKvPageSize;

struct Query {
  const float* q;
  float* out;
  float* lse;  // or nullptr
  std::int64_t position;
};

// What a block of queries shares in one split.
struct Split {
  const float* k[kSplitPages];  // the KV head's part of each page: [Dh][16]
  const float* v[kSplitPages];  // [16][Dh]
  std::int64_t pages;
  std::int64_t head_dim;
  float scale;
};

// The online softmax of one query: maximum, sum of weights, weighted values.
struct Running {
  float maximum;
  float sum;
  alignas(64) float values[kMaxHeadDim];
};

// q: [MQ] rows at distance kMaxHeadDim. scores[i][16 page + lane] for NP pages from `page`; ld
// kAttentionSplit.
template <int MQ, int NP>
THRESHER_INLINE void ScorePages(const Split& split, const float* q, std::int64_t page,
                                float* scores) {
  F16 acc[MQ][NP];
#pragma GCC unroll 8
  for (int i = 0; i < MQ; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < NP; ++n) acc[i][n] = Zero();
  }
  for (std::int64_t d = 0; d < split.head_dim; ++d) {
    F16 k[NP];
#pragma GCC unroll 4
    for (int n = 0; n < NP; ++n) k[n] = Load(split.k[page + n] + d * kKvPageSize);
#pragma GCC unroll 8
    for (int i = 0; i < MQ; ++i) {
      const F16 a = Set1(q[i * kMaxHeadDim + d]);
#pragma GCC unroll 4
      for (int n = 0; n < NP; ++n) acc[i][n] = Fma(a, k[n], acc[i][n]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MQ; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < NP; ++n) {
      Store(scores + i * kAttentionSplit + (page + n) * kKvPageSize,
            Mul(acc[i][n], Set1(split.scale)));
    }
  }
}

// Pages [page, split.pages), NP at a time, then what is left at once.
template <int MQ, int NP = AttentionVecs(MQ)>
static void Scores(const Split& split, const float* q, float* scores, std::int64_t page = 0) {
  for (; page + NP <= split.pages; page += NP) ScorePages<MQ, NP>(split, q, page, scores);
  if constexpr (NP > 1) {
    if (page < split.pages) Scores<MQ, NP - 1>(split, q, scores, page);
  }
}

// Scores of the first n positions become weights in place, +0 beyond, up to whole vectors.
static void SplitSoftmax(std::int64_t n, float* scores, float* maximum, float* sum) {
  const F16 minus_inf = Set1(-__builtin_inff());
  F16 max = minus_inf;
  for (std::int64_t j = 0; j < n; j += 16) {
    max = Max(max, Select(FirstN(n - j), Load(scores + j), minus_inf));
  }
  *maximum = ReduceMax(max);
  const F16 shift = Set1(*maximum);
  F16 total = Zero();
  for (std::int64_t j = 0; j < n; j += 16) {
    const F16 weight = Select(FirstN(n - j), ExpV(Sub(Load(scores + j), shift)), Zero());
    Store(scores + j, weight);
    total = Add(total, weight);
  }
  *sum = ReduceAdd(total);
}

// values[i][c0..] continued over positions [j0, j1) of the split; started from +0 if j0 is 0.
template <int MQ, int NV, bool kTail>
static void ValueTile(const Split& split, std::int64_t c0, std::int64_t j0, std::int64_t j1,
                      const float* weights, float* values) {
  const std::int64_t columns = split.head_dim - c0;
  F16 acc[MQ][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MQ; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) {
      acc[i][n] = j0 == 0 ? Zero() : Load(values + i * kMaxHeadDim + c0 + n * 16);
    }
  }
  const float* row = nullptr;
  for (std::int64_t j = j0; j < j1; ++j, row += split.head_dim) {
    const std::int64_t slot = j % kKvPageSize;
    if (slot == 0 || j == j0) row = split.v[j / kKvPageSize] + slot * split.head_dim + c0;
    F16 v[NV];
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) {
      v[n] = kTail ? LoadN(row + n * 16, columns - n * 16) : Load(row + n * 16);
    }
#pragma GCC unroll 8
    for (int i = 0; i < MQ; ++i) {
      const F16 w = Set1(weights[i * kAttentionSplit + j]);
#pragma GCC unroll 4
      for (int n = 0; n < NV; ++n) acc[i][n] = Fma(w, v[n], acc[i][n]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MQ; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) Store(values + i * kMaxHeadDim + c0 + n * 16, acc[i][n]);
  }
}

template <int MQ>
static void Values(const Split& split, std::int64_t j0, std::int64_t j1, const float* weights,
                   float* values) {
  constexpr int NV = AttentionVecs(MQ);
  std::int64_t c = 0;
  for (; c + NV * 16 <= split.head_dim; c += NV * 16) {
    ValueTile<MQ, NV, false>(split, c, j0, j1, weights, values);
  }
  for (; c + 16 <= split.head_dim; c += 16) {
    ValueTile<MQ, 1, false>(split, c, j0, j1, weights, values);
  }
  if (c < split.head_dim) ValueTile<MQ, 1, true>(split, c, j0, j1, weights, values);
}

// What a split found for MQ queries.
template <int MQ>
struct SplitResult {
  alignas(64) float values[MQ * kMaxHeadDim];
  float maximum[MQ], sum[MQ];
  std::int64_t valid[MQ];  // its positions that the query sees; 0: none of it counts
};

// The online softmax. The factors of all queries are one vector of exponentials.
template <int MQ>
static void FoldSplit(std::int64_t head_dim, bool first, const SplitResult<MQ>& found,
                      Running* running) {
  alignas(64) float scales[16] = {};  // of query i: the old one at i, the new one at 8 + i
  static_assert(MQ <= 8);
  for (int i = 0; i < MQ && !first; ++i) {
    if (found.valid[i] == 0) continue;
    const float old_maximum = running[i].maximum, new_maximum = found.maximum[i];
    const float joint = old_maximum > new_maximum ? old_maximum : new_maximum;
    scales[i] = old_maximum - joint;
    scales[8 + i] = new_maximum - joint;
    running[i].maximum = joint;
  }
  if (!first) Store(scales, ExpV(Load(scales)));
  for (int i = 0; i < MQ; ++i) {
    if (found.valid[i] == 0) continue;
    const float* values = found.values + i * kMaxHeadDim;
    Running& to = running[i];
    if (first) {
      to.maximum = found.maximum[i];
      to.sum = found.sum[i];
      for (std::int64_t c = 0; c < head_dim; c += 16) Store(to.values + c, Load(values + c));
      continue;
    }
    const F16 old_scale = Set1(scales[i]), new_scale = Set1(scales[8 + i]);
    to.sum = Lane0(Fma(Set1(to.sum), old_scale, Mul(Set1(found.sum[i]), new_scale)));
    for (std::int64_t c = 0; c < head_dim; c += 16) {
      const F16 scaled = Mul(Load(values + c), new_scale);
      Store(to.values + c, Fma(Load(to.values + c), old_scale, scaled));
    }
  }
}

// One split for MQ queries, folded into their running state.
template <int MQ>
static void OneSplit(const Split& split, std::int64_t start, const Query* queries, const float* q,
                     Running* running) {
  alignas(64) float weights[MQ * kAttentionSplit];
  SplitResult<MQ> found;
  std::int64_t common = kAttentionSplit;
  Scores<MQ>(split, q, weights);
  for (int i = 0; i < MQ; ++i) {
    std::int64_t valid = queries[i].position - start + 1;
    valid = valid < 0 ? 0 : valid > kAttentionSplit ? kAttentionSplit : valid;
    common = valid < common ? valid : common;
    found.valid[i] = valid;
    if (valid == 0) continue;
    SplitSoftmax(valid, weights + i * kAttentionSplit, &found.maximum[i], &found.sum[i]);
  }
  if (common > 0) Values<MQ>(split, 0, common, weights, found.values);
  for (int i = 0; i < MQ; ++i) {
    if (found.valid[i] > common) {
      Values<1>(split, common, found.valid[i], weights + i * kAttentionSplit,
                found.values + i * kMaxHeadDim);
    }
  }
  FoldSplit<MQ>(split.head_dim, start == 0, found, running);
}

static void FinishQuery(std::int64_t head_dim, const Running& running, const Query& query) {
  const F16 inverse = Set1(1.0f / running.sum);
  for (std::int64_t c = 0; c < head_dim; c += 16) {
    StoreN(query.out + c, Mul(Load(running.values + c), inverse), head_dim - c);
  }
  if (query.lse != nullptr) *query.lse = running.maximum + LogScalar(running.sum);
}

// The beginnings of the pages read next: this split's values and the next one's keys. The hardware
// fetches the rest of a page by itself, but cannot know where the next one lies.
static void FetchPages(const Split& split, const Split& next) {
  constexpr std::int64_t kLines = 4, kLineFloats = 16;
  for (std::int64_t line = 0; line < kLines; ++line) {
    for (std::int64_t i = 0; i < split.pages; ++i) {
      __builtin_prefetch(split.v[i] + line * kLineFloats, 0, 3);
    }
    for (std::int64_t i = 0; i < next.pages; ++i) {
      __builtin_prefetch(next.k[i] + line * kLineFloats, 0, 3);
    }
  }
}

// MQ queries of one sequence and one KV head.
template <int MQ>
static void QueryBlock(const Query* queries, const std::int32_t* page_table, std::int64_t kv_head,
                       std::int64_t head_dim, float scale, const KvPages& pages) {
  Running running[MQ];
  std::int64_t last = 0;
  alignas(64) float q[MQ * kMaxHeadDim];  // side by side: addressed from one register
  for (int i = 0; i < MQ; ++i) {
    last = queries[i].position > last ? queries[i].position : last;
    for (std::int64_t d = 0; d < head_dim; d += 16) {
      Store(q + i * kMaxHeadDim + d, LoadN(queries[i].q + d, head_dim - d));
    }
  }
  const std::int64_t head_offset = kv_head * kKvPageSize * head_dim;
  const std::int64_t page_count = last / kKvPageSize + 1;
  const auto find_pages = [&](std::int64_t page0, Split* split) {
    const std::int64_t left = page_count - page0;
    split->pages = left < kSplitPages ? left : kSplitPages;
    for (std::int64_t i = 0; i < split->pages; ++i) {
      const std::size_t page = static_cast<std::size_t>(page_table[page0 + i]);
      split->k[i] = pages.k_base + page * pages.page_stride_floats + head_offset;
      split->v[i] = pages.v_base + page * pages.page_stride_floats + head_offset;
    }
  };
  Split split{{}, {}, 0, head_dim, scale};
  Split next = split;
  find_pages(0, &split);
  for (std::int64_t page0 = 0; page0 < page_count; page0 += kSplitPages) {
    next.pages = 0;
    if (page0 + kSplitPages < page_count) find_pages(page0 + kSplitPages, &next);
    FetchPages(split, next);
    OneSplit<MQ>(split, page0 * kKvPageSize, queries, q, running);
    split = next;
  }
  for (int i = 0; i < MQ; ++i) FinishQuery(head_dim, running[i], queries[i]);
}

// `count` (1 to MQ) queries of one sequence and one KV head.
template <int MQ = kMaxQueries>
static void QueriesOf(std::int64_t count, const Query* queries, const std::int32_t* page_table,
                      std::int64_t kv_head, std::int64_t head_dim, float scale,
                      const KvPages& pages) {
  if constexpr (MQ > 1) {
    if (count < MQ) {
      constexpr int kFewer = MQ > kQueries ? kQueries : MQ - 1;
      return QueriesOf<kFewer>(count, queries, page_table, kv_head, head_dim, scale, pages);
    }
  }
  QueryBlock<MQ>(queries, page_table, kv_head, head_dim, scale, pages);
}

static void Attention(std::int64_t t, std::int64_t heads, std::int64_t kv_heads,
                      std::int64_t head_dim, const float* q, std::int64_t ldq,
                      const std::int32_t* const* page_tables, const std::int32_t* positions,
                      float scale, const KvPages& pages, float* out, std::int64_t ldo, float* lse) {
  const std::int64_t group = heads / kv_heads;
  for (std::int64_t t0 = 0, t1 = 0; t0 < t; t0 = t1) {
    const std::int32_t* table = page_tables[t0];
    for (t1 = t0 + 1; t1 < t && page_tables[t1] == table;) ++t1;
    const std::int64_t total = (t1 - t0) * group;
    for (std::int64_t g = 0; g < kv_heads; ++g) {
      for (std::int64_t e = 0; e < total;) {
        // All that is left if one block holds it, else a block of the fastest size.
        const std::int64_t left = total - e;
        const std::int64_t count = left <= kQueries || left == kMaxQueries ? left : kQueries;
        Query block[kMaxQueries];
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int64_t row = t0 + (e + i) / group;
          const std::int64_t head = g * group + (e + i) % group;
          block[i] = {q + row * ldq + head * head_dim, out + row * ldo + head * head_dim,
                      lse != nullptr ? lse + row * heads + head : nullptr, positions[row]};
        }
        QueriesOf(count, block, table, g, head_dim, scale, pages);
        e += count;
      }
    }
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
