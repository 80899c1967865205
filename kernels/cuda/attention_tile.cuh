#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kv_page.cuh"
#include "kernels/cuda/lanes.cuh"

// One split of 64 positions for a tile of queries that read the same keys. A block has 128 threads:
// eight groups of 16, the virtual lanes, each with kPer queries. Lane l has the scores of positions
// l, 16 + l, 32 + l, 48 + l of the split, and dimensions 64c + 4l .. 64c + 4l + 3 of the values.
namespace thresher::kernels::cuda {

inline constexpr int kTileThreads = 128, kTileGroups = kTileThreads / simt::kGroup;
inline constexpr int kSplit = static_cast<int>(kAttentionSplit);
inline constexpr int kSplitPages = kSplit / static_cast<int>(kKvPageSize);
inline constexpr int kChunk = 64;  // dimensions that a group works on at a time

// Of a tile of kPer queries a group.
template <int kPer>
struct Tile {
  static constexpr int kQueries = kPer * kTileGroups;
  // Shared memory.
  float* q;        // [kQueries, Dh]
  float* weights;  // [kQueries, 64]
  float* pages;    // K as [Dh][16 lanes][4 pages], then V as [64][Dh]
  std::int64_t head_dim;

  static constexpr std::size_t SharedBytes(std::int64_t head_dim) {
    return static_cast<std::size_t>(kQueries * head_dim + kQueries * kSplit + kSplit * head_dim) *
           sizeof(float);
  }
  THRESHER_DEVICE Tile(float* shared, std::int64_t head_dim)
      : q(shared),
        weights(q + kQueries * head_dim),
        pages(weights + kQueries * kSplit),
        head_dim(head_dim) {}
};

THRESHER_DEVICE int GroupOfBlock() { return static_cast<int>(threadIdx.x) / simt::kGroup; }

// A split's pages, as many as there are up to the last position, for one KV head: where its part of
// each begins, in elements, in K and in V alike.
struct SplitPages {
  std::size_t part[kSplitPages];
  int count;

  // part[n] by comparisons: an index would put the array into memory.
  THRESHER_DEVICE std::size_t Part(int n) const {
    return n == 0 ? part[0] : n == 1 ? part[1] : n == 2 ? part[2] : part[3];
  }
};

THRESHER_DEVICE SplitPages PagesOf(const KvCache& kv, const std::int32_t* table, std::int64_t split,
                                   std::int64_t last_position, std::int64_t kv_head,
                                   std::int64_t head_dim) {
  SplitPages pages;
  const std::int64_t first = split * kSplitPages, end = last_position / kKvPageSize + 1;
  pages.count = end - first < kSplitPages ? static_cast<int>(end - first) : kSplitPages;
#pragma unroll
  for (int n = 0; n < kSplitPages; ++n) {
    pages.part[n] = n < pages.count ? PartOfPage(kv, table[first + n], kv_head, head_dim) : 0;
  }
  return pages;
}

template <KvType kType>
THRESHER_DEVICE void LoadKeys(const KvCache& kv, const SplitPages& pages, std::int64_t head_dim,
                              float* tile) {
  using Element = typename KvStorage<kType>::Element;
  using Keys = typename KvStorage<kType>::Keys;
  constexpr int kDims = sizeof(Keys) / sizeof(Element);
  const auto* k = static_cast<const Element*>(kv.k);
  const int count = static_cast<int>(head_dim) / kDims * simt::kGroup;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kTileThreads) {
    float keys[kSplitPages][kDims] = {};  // scores of missing pages are not used
#pragma unroll
    for (int n = 0; n < kSplitPages; ++n) {
      if (n < pages.count) Unpack(simt::LoadAs<Keys>(k + pages.part[n] + i * kDims), keys[n]);
    }
    const int d = i / simt::kGroup * kDims, lane = i % simt::kGroup;
#pragma unroll
    for (int e = 0; e < kDims; ++e) {
      simt::StoreAs(tile + (d + e) * kSplit + lane * kSplitPages,
                    float4{keys[0][e], keys[1][e], keys[2][e], keys[3][e]});
    }
  }
}

template <KvType kType>
THRESHER_DEVICE void LoadValues(const KvCache& kv, const SplitPages& pages, std::int64_t head_dim,
                                float* tile) {
  using Element = typename KvStorage<kType>::Element;
  using Wide = typename KvStorage<kType>::Wide;
  constexpr int kDims = sizeof(Wide) / sizeof(Element);
  const auto* v = static_cast<const Element*>(kv.v);
  const int page = static_cast<int>(kKvPageSize * head_dim) / kDims, count = pages.count * page;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kTileThreads) {
    float values[kDims];
    Unpack(simt::LoadAs<Wide>(v + pages.Part(i / page) + i % page * kDims), values);
#pragma unroll
    for (int e = 0; e < kDims; e += 4) {
      simt::StoreAs(tile + i * kDims + e,
                    float4{values[e], values[e + 1], values[e + 2], values[e + 3]});
    }
  }
}

// What a split gives the queries of a group.
template <int kPer>
struct SplitFound {
  float maximum[kPer], sum[kPer];
  int valid[kPer];  // positions of the split that the query sees; 0: none of it counts
};

// The scores of one query become weights in shared memory; maximum and sum as kernels/cpu has them.
THRESHER_DEVICE void SplitSoftmax(const float (&score)[kSplitPages], int valid, float* weights,
                                  float* maximum, float* sum) {
  using namespace cuda_lanes;
  const F16 minus_inf = Set1(-__builtin_inff());
  F16 max = minus_inf;
#pragma unroll
  for (int n = 0; n < kSplitPages; ++n) {
    if (n * 16 >= valid) break;
    max = Max(max, Select(FirstN(valid - n * 16), F16{score[n]}, minus_inf));
  }
  *maximum = ReduceMax(max);
  F16 total = Zero();
#pragma unroll
  for (int n = 0; n < kSplitPages; ++n) {
    if (n * 16 >= valid) break;
    const F16 shifted = Sub(F16{score[n]}, Set1(*maximum));
    const F16 weight = Select(FirstN(valid - n * 16), ExpV(shifted), Zero());
    Store(weights + n * 16, weight);
    total = Add(total, weight);
  }
  *sum = ReduceAdd(total);
}

// Scores of a group's queries, then their weights. found->valid is set by the caller.
template <int kPer>
THRESHER_DEVICE void ScoreSplit(const Tile<kPer>& tile, float scale, SplitFound<kPer>* found) {
  const int head_dim = static_cast<int>(tile.head_dim), query = GroupOfBlock() * kPer;
  const float* q = tile.q + query * head_dim;
  const float* keys = tile.pages + simt::Lane() * kSplitPages;
  float score[kPer][kSplitPages] = {};
#pragma unroll 2
  for (int d = 0; d < head_dim; d += 4) {
    float4 a[kPer];
#pragma unroll
    for (int i = 0; i < kPer; ++i) a[i] = simt::LoadAs<float4>(q + i * head_dim + d);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float4 k = simt::LoadAs<float4>(keys + (d + e) * kSplit);
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const float x = e == 0 ? a[i].x : e == 1 ? a[i].y : e == 2 ? a[i].z : a[i].w;
        score[i][0] = simt::Fma(x, k.x, score[i][0]);
        score[i][1] = simt::Fma(x, k.y, score[i][1]);
        score[i][2] = simt::Fma(x, k.z, score[i][2]);
        score[i][3] = simt::Fma(x, k.w, score[i][3]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (found->valid[i] == 0) continue;
#pragma unroll
    for (int n = 0; n < kSplitPages; ++n) score[i][n] = simt::Mul(score[i][n], scale);
    SplitSoftmax(score[i], found->valid[i], tile.weights + (query + i) * kSplit, &found->maximum[i],
                 &found->sum[i]);
  }
  simt::SyncGroup();
}

THRESHER_DEVICE void FmaInto(float w, float4 v, float (&sum)[4]) {
  sum[0] = simt::Fma(w, v.x, sum[0]);
  sum[1] = simt::Fma(w, v.y, sum[1]);
  sum[2] = simt::Fma(w, v.z, sum[2]);
  sum[3] = simt::Fma(w, v.w, sum[3]);
}

// values[i]: this thread's four dimensions, from `c` on, of query i's weighted values: a chain over
// its positions ascending. Positions that it does not see are left out, whatever lies there; what
// a query without valid positions gets is undefined.
template <int kPer>
THRESHER_DEVICE void WeighValues(const Tile<kPer>& tile, const SplitFound<kPer>& found, int c,
                                 float (&values)[kPer][4]) {
  const int head_dim = static_cast<int>(tile.head_dim);
  const float* weights = tile.weights + GroupOfBlock() * kPer * kSplit;
  int common = kSplit, last = 0;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (found.valid[i] > 0 && found.valid[i] < common) common = found.valid[i];
    last = found.valid[i] > last ? found.valid[i] : last;
    for (float& value : values[i]) value = 0;
  }
  int j = 0;
  for (; j + 4 <= common; j += 4) {
    float4 v[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) v[e] = simt::LoadAs<float4>(tile.pages + (j + e) * head_dim + c);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const float4 w = simt::LoadAs<float4>(weights + i * kSplit + j);
      FmaInto(w.x, v[0], values[i]);
      FmaInto(w.y, v[1], values[i]);
      FmaInto(w.z, v[2], values[i]);
      FmaInto(w.w, v[3], values[i]);
    }
  }
  for (; j < last; ++j) {
    const float4 v = simt::LoadAs<float4>(tile.pages + j * head_dim + c);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      if (j < found.valid[i]) FmaInto(weights[i * kSplit + j], v, values[i]);
    }
  }
}

}  // namespace thresher::kernels::cuda
