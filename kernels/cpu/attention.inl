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

// scores[i][16 page + lane] for NP pages from `page`; ld kAttentionSplit.
template <int MQ, int NP>
THRESHER_INLINE void ScorePages(const Split& split, const Query* queries, std::int64_t page,
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
      const F16 q = Set1(queries[i].q[d]);
#pragma GCC unroll 4
      for (int n = 0; n < NP; ++n) acc[i][n] = Fma(q, k[n], acc[i][n]);
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

template <int MQ>
static void Scores(const Split& split, const Query* queries, float* scores) {
  std::int64_t page = 0;
  for (; page + kScorePages <= split.pages; page += kScorePages) {
    ScorePages<MQ, kScorePages>(split, queries, page, scores);
  }
  for (; page < split.pages; ++page) ScorePages<MQ, 1>(split, queries, page, scores);
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
  for (std::int64_t j = j0; j < j1; ++j) {
    const float* row = split.v[j / kKvPageSize] + (j % kKvPageSize) * split.head_dim + c0;
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
  std::int64_t c = 0;
  for (; c + kValueVecs * 16 <= split.head_dim; c += kValueVecs * 16) {
    ValueTile<MQ, kValueVecs, false>(split, c, j0, j1, weights, values);
  }
  for (; c + 16 <= split.head_dim; c += 16) {
    ValueTile<MQ, 1, false>(split, c, j0, j1, weights, values);
  }
  if (c < split.head_dim) ValueTile<MQ, 1, true>(split, c, j0, j1, weights, values);
}

static void FoldSplit(std::int64_t head_dim, bool first, float maximum, float sum,
                      const float* values, Running* running) {
  if (first) {
    running->maximum = maximum;
    running->sum = sum;
    for (std::int64_t c = 0; c < head_dim; c += 16) Store(running->values + c, Load(values + c));
    return;
  }
  const float joint = running->maximum > maximum ? running->maximum : maximum;
  const F16 old_scale = ExpV(Set1(running->maximum - joint));
  const F16 new_scale = ExpV(Set1(maximum - joint));
  running->maximum = joint;
  running->sum = Lane0(Fma(Set1(running->sum), old_scale, Mul(Set1(sum), new_scale)));
  for (std::int64_t c = 0; c < head_dim; c += 16) {
    const F16 scaled = Mul(Load(values + c), new_scale);
    Store(running->values + c, Fma(Load(running->values + c), old_scale, scaled));
  }
}

// One split for MQ queries, folded into their running state.
template <int MQ>
static void OneSplit(const Split& split, std::int64_t start, const Query* queries,
                     Running* running) {
  alignas(64) float weights[MQ * kAttentionSplit];
  alignas(64) float values[MQ * kMaxHeadDim];
  float maximum[MQ], sum[MQ];
  std::int64_t valid[MQ];
  std::int64_t common = kAttentionSplit;
  Scores<MQ>(split, queries, weights);
  for (int i = 0; i < MQ; ++i) {
    valid[i] = queries[i].position - start + 1;
    valid[i] = valid[i] < 0 ? 0 : valid[i] > kAttentionSplit ? kAttentionSplit : valid[i];
    common = valid[i] < common ? valid[i] : common;
    if (valid[i] > 0) SplitSoftmax(valid[i], weights + i * kAttentionSplit, &maximum[i], &sum[i]);
  }
  if (common > 0) Values<MQ>(split, 0, common, weights, values);
  for (int i = 0; i < MQ; ++i) {
    if (valid[i] > common) {
      Values<1>(split, common, valid[i], weights + i * kAttentionSplit, values + i * kMaxHeadDim);
    }
    if (valid[i] > 0) {
      FoldSplit(split.head_dim, start == 0, maximum[i], sum[i], values + i * kMaxHeadDim,
                &running[i]);
    }
  }
}

static void FinishQuery(std::int64_t head_dim, const Running& running, const Query& query) {
  const F16 inverse = Set1(1.0f / running.sum);
  for (std::int64_t c = 0; c < head_dim; c += 16) {
    StoreN(query.out + c, Mul(Load(running.values + c), inverse), head_dim - c);
  }
  if (query.lse != nullptr) *query.lse = running.maximum + LogScalar(running.sum);
}

// MQ queries of one sequence and one KV head.
template <int MQ>
static void QueryBlock(const Query* queries, const std::int32_t* page_table, std::int64_t kv_head,
                       std::int64_t head_dim, float scale, const KvPages& pages) {
  Running running[MQ];
  std::int64_t last = 0;
  for (int i = 0; i < MQ; ++i) last = queries[i].position > last ? queries[i].position : last;
  const std::int64_t head_offset = kv_head * kKvPageSize * head_dim;
  const std::int64_t page_count = last / kKvPageSize + 1;
  Split split{{}, {}, 0, head_dim, scale};
  for (std::int64_t page0 = 0; page0 < page_count; page0 += kSplitPages) {
    const std::int64_t left = page_count - page0;
    split.pages = left < kSplitPages ? left : kSplitPages;
    for (std::int64_t i = 0; i < split.pages; ++i) {
      const std::size_t page = static_cast<std::size_t>(page_table[page0 + i]);
      split.k[i] = pages.k_base + page * pages.page_stride_floats + head_offset;
      split.v[i] = pages.v_base + page * pages.page_stride_floats + head_offset;
    }
    OneSplit<MQ>(split, page0 * kKvPageSize, queries, running);
  }
  for (int i = 0; i < MQ; ++i) FinishQuery(head_dim, running[i], queries[i]);
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
        Query block[kQueries];
        const std::int64_t count = total - e < kQueries ? total - e : kQueries;
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int64_t row = t0 + (e + i) / group;
          const std::int64_t head = g * group + (e + i) % group;
          block[i] = {q + row * ldq + head * head_dim, out + row * ldo + head * head_dim,
                      lse != nullptr ? lse + row * heads + head : nullptr, positions[row]};
        }
        if (count == kQueries) {
          QueryBlock<kQueries>(block, table, g, head_dim, scale, pages);
          e += kQueries;
        } else if (count >= 2) {
          QueryBlock<2>(block, table, g, head_dim, scale, pages);
          e += 2;
        } else {
          QueryBlock<1>(block, table, g, head_dim, scale, pages);
          e += 1;
        }
      }
    }
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
