#include "kernels/cpu/gemm.h"
#include "kernels/cuda/attention_backward.h"
#include "kernels/cuda/group_loop.cuh"
#include "kernels/cuda/lanes.cuh"

// Tiles of 64 queries x 64 keys, by 256 threads: probabilities and score gradients of a tile are
// computed where they are needed, once for dq and once for dk and dv, and never stored. A thread
// has queries (or keys) 4g .. 4g + 3 of its group g of 16 threads.
namespace thresher::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;              // the CPU's block of queries
constexpr int kLdWeights = kTile + 4;  // spread over the banks
constexpr int kTilesOfChunk = static_cast<int>(kGemmKChunk) / kTile;
constexpr int kDims = 64;  // dimensions that a group works on at a time

struct Shared {
  float *a, *b;   // [64, Dh + 4]
  float *p, *ds;  // [64 queries, kLdWeights]
  int ld;         // of a and b

  THRESHER_DEVICE Shared(float* shared, std::int64_t head_dim)
      : a(shared), ld(static_cast<int>(head_dim) + 4) {
    b = a + kTile * ld;
    p = b + kTile * ld;
    ds = p + kTile * kLdWeights;
  }
  static std::size_t Bytes(std::int64_t head_dim) {
    return static_cast<std::size_t>(2 * kTile * (head_dim + 4 + kLdWeights)) * sizeof(float);
  }
};

struct Call {
  AttentionBackwardArgs a;
  const std::int32_t* begin;  // of sequences
  std::int64_t tiles;         // of the longest sequence
  const float* delta;         // [T, H]
};

// The sequence and tile of a block: rows [begin, end) and the tile's first row within them.
struct Place {
  std::int64_t begin, length, first;
};

__device__ Place PlaceOf(const Call& c) {
  const std::int64_t sequence = blockIdx.x / c.tiles, begin = c.begin[sequence];
  return {begin, c.begin[sequence + 1] - begin, blockIdx.x % c.tiles * kTile};
}

__device__ int RowsOf(std::int64_t length, std::int64_t first) {
  return length - first < kTile ? static_cast<int>(length - first) : kTile;
}

__device__ int GroupOfThread() { return static_cast<int>(threadIdx.x) / simt::kGroup; }

// `rows` rows of x (at ldx), the rest of the tile zero. The block meets before and after.
__device__ void LoadTile(const float* x, std::int64_t ldx, int rows, std::int64_t head_dim, int ld,
                         float* tile) {
  const int dh = static_cast<int>(head_dim);
  for (int i = static_cast<int>(threadIdx.x); i < kTile * dh; i += kThreads) {
    const int row = i / dh, d = i % dh;
    tile[row * ld + d] = row < rows ? x[row * ldx + d] : 0.0f;
  }
}

// dot[r][n] = a[4g + r] . b[lane + 16n]: one chain over dimensions each.
__device__ void Dots(const Shared& s, std::int64_t head_dim, float (&dot)[4][4]) {
#pragma unroll
  for (auto& row : dot) {
    for (float& value : row) value = 0;
  }
  const float* a = s.a + GroupOfThread() * 4 * s.ld;
  const float* b = s.b + simt::Lane() * s.ld;
  for (int d = 0; d < head_dim; d += 4) {
    float4 x[4], y[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) x[r] = simt::LoadAs<float4>(a + r * s.ld + d);
#pragma unroll
    for (int n = 0; n < 4; ++n) y[n] = simt::LoadAs<float4>(b + n * simt::kGroup * s.ld + d);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        float& sum = dot[r][n];
        sum = simt::Fma(x[r].x, y[n].x, sum);
        sum = simt::Fma(x[r].y, y[n].y, sum);
        sum = simt::Fma(x[r].z, y[n].z, sum);
        sum = simt::Fma(x[r].w, y[n].w, sum);
      }
    }
  }
}

// sum[r][e] continued over [0, count): weight(i) [4 of the group] x row i of `rows`, dimensions
// c .. c + 3.
template <class Weight>
__device__ void Continue(int count, const float* rows, int ld, int c, const Weight& weight,
                         float (&sum)[4][4]) {
  for (int i = 0; i < count; ++i) {
    const float4 w = weight(i), x = simt::LoadAs<float4>(rows + i * ld + c);
    const float ws[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      sum[r][0] = simt::Fma(ws[r], x.x, sum[r][0]);
      sum[r][1] = simt::Fma(ws[r], x.y, sum[r][1]);
      sum[r][2] = simt::Fma(ws[r], x.z, sum[r][2]);
      sum[r][3] = simt::Fma(ws[r], x.w, sum[r][3]);
    }
  }
}

// Probabilities and score gradients of the tile of queries q0.. and keys k0.. of head h, in s.p and
// s.ds. Leaves dO in s.a and V in s.b. The block meets before and after.
__device__ void ScoreTile(const Call& c, const Place& place, std::int64_t h, std::int64_t q0,
                          std::int64_t k0, const Shared& s) {
  const AttentionBackwardArgs& a = c.a;
  const std::int64_t dh = a.head_dim, g = h / (a.heads / a.kv_heads);
  const std::int64_t q_row = place.begin + q0, k_row = place.begin + k0;
  const int queries = RowsOf(place.length, q0), keys = RowsOf(place.length, k0);
  float score[4][4], dp[4][4];
  __syncthreads();
  LoadTile(a.q + q_row * a.ldq + h * dh, a.ldq, queries, dh, s.ld, s.a);
  LoadTile(a.k + k_row * a.ldk + g * dh, a.ldk, keys, dh, s.ld, s.b);
  __syncthreads();
  Dots(s, dh, score);
  __syncthreads();
  LoadTile(a.dout + q_row * a.lddo + h * dh, a.lddo, queries, dh, s.ld, s.a);
  LoadTile(a.v + k_row * a.ldv + g * dh, a.ldv, keys, dh, s.ld, s.b);
  __syncthreads();
  Dots(s, dh, dp);
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int i = GroupOfThread() * 4 + r;
    const std::int64_t of_row = (q_row + i) * a.heads + h;
    const float lse = i < queries ? a.lse[of_row] : 0.0f;
    const float delta = i < queries ? c.delta[of_row] : 0.0f;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int j = simt::Lane() + n * simt::kGroup;
      const bool seen = k0 + j <= q0 + i && i < queries;
      const float p = Exp(simt::Sub(simt::Mul(score[r][n], a.scale), lse));
      const float ds = simt::Mul(simt::Mul(p, simt::Sub(dp[r][n], delta)), a.scale);
      s.p[i * kLdWeights + j] = seen ? p : 0.0f;
      s.ds[i * kLdWeights + j] = seen ? ds : 0.0f;
    }
  }
  __syncthreads();
}

// out[r] of the group's rows that are there, dimensions of this thread.
template <int kChunks>
__device__ void StoreRows(const float (&sum)[kChunks][4][4], int rows, std::int64_t head_dim,
                          float* out, std::int64_t ld) {
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int d = chunk * kDims + simt::Lane() * 4;
    if (d >= head_dim) continue;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = GroupOfThread() * 4 + r;
      if (row >= rows) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) out[row * ld + d + e] = sum[chunk][r][e];
    }
  }
}

// Block (x, y): tile of queries x, head y. A chain over positions ascending in each chunk of them.
template <int kChunks>
__global__ void __launch_bounds__(kThreads) QueryGrads(Call c) {
  const Place place = PlaceOf(c);
  if (place.first >= place.length) return;
  const AttentionBackwardArgs& a = c.a;
  const std::int64_t h = blockIdx.y, dh = a.head_dim, g = h / (a.heads / a.kv_heads);
  const Shared s(simt::SharedMemory<float>(), dh);
  float total[kChunks][4][4] = {}, chain[kChunks][4][4] = {};
  const std::int64_t tiles = place.first / kTile + 1;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    const std::int64_t k0 = tile * kTile;
    const int keys = RowsOf(place.length, k0);
    ScoreTile(c, place, h, place.first, k0, s);
    LoadTile(a.k + (place.begin + k0) * a.ldk + g * dh, a.ldk, keys, dh, s.ld, s.b);
    __syncthreads();
    const float* ds = s.ds + GroupOfThread() * 4 * kLdWeights;
    const auto weight = [&](int j) {
      return float4{ds[j], ds[kLdWeights + j], ds[2 * kLdWeights + j], ds[3 * kLdWeights + j]};
    };
    const bool ends = tile + 1 == tiles || (tile + 1) % kTilesOfChunk == 0;
    const bool first = tile < kTilesOfChunk;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int d = chunk * kDims + simt::Lane() * 4;
      if (d < dh) Continue(keys, s.b, s.ld, d, weight, chain[chunk]);
      if (!ends) continue;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& sum = total[chunk][r][e];
          sum = first ? chain[chunk][r][e] : simt::Add(sum, chain[chunk][r][e]);
          chain[chunk][r][e] = 0;
        }
      }
    }
  }
  StoreRows<kChunks>(total, RowsOf(place.length, place.first), dh,
                     a.dq + (place.begin + place.first) * a.lddq + h * dh, a.lddq);
}

// Block (x, y): tile of keys x, KV head y. One chain over (block of queries, head, query).
template <int kChunks>
__global__ void __launch_bounds__(kThreads) KeyGrads(Call c) {
  const Place place = PlaceOf(c);
  if (place.first >= place.length) return;
  const AttentionBackwardArgs& a = c.a;
  const std::int64_t g = blockIdx.y, dh = a.head_dim, group = a.heads / a.kv_heads;
  const Shared s(simt::SharedMemory<float>(), dh);
  float dk[kChunks][4][4] = {}, dv[kChunks][4][4] = {};
  const int of_group = GroupOfThread() * 4;
  const auto p = [&](int i) { return simt::LoadAs<float4>(s.p + i * kLdWeights + of_group); };
  const auto ds = [&](int i) { return simt::LoadAs<float4>(s.ds + i * kLdWeights + of_group); };
  for (std::int64_t q0 = place.first; q0 < place.length; q0 += kTile) {
    const int queries = RowsOf(place.length, q0);
    for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
      ScoreTile(c, place, h, q0, place.first, s);
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int d = chunk * kDims + simt::Lane() * 4;
        if (d < dh) Continue(queries, s.a, s.ld, d, p, dv[chunk]);
      }
      LoadTile(a.q + (place.begin + q0) * a.ldq + h * dh, a.ldq, queries, dh, s.ld, s.b);
      __syncthreads();
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int d = chunk * kDims + simt::Lane() * 4;
        if (d < dh) Continue(queries, s.b, s.ld, d, ds, dk[chunk]);
      }
    }
  }
  const int keys = RowsOf(place.length, place.first);
  const std::int64_t row = place.begin + place.first;
  StoreRows<kChunks>(dk, keys, dh, a.dk + row * a.lddk + g * dh, a.lddk);
  StoreRows<kChunks>(dv, keys, dh, a.dv + row * a.lddv + g * dh, a.lddv);
}

// dO . out of every row and head, over 16 lanes.
__global__ void Deltas(AttentionBackwardArgs a, float* delta) {
  using namespace cuda_lanes;
  ForEachUnitOfGroup(a.t * a.heads, [&](std::int64_t unit) {
    const std::int64_t t = unit / a.heads, dh = a.head_dim, h = unit % a.heads * dh;
    F16 sum = Zero();
    for (std::int64_t d = 0; d < dh; d += 16) {
      sum = cuda_lanes::Fma(LoadN(a.dout + t * a.lddo + h + d, dh - d),
                            LoadN(a.out + t * a.ldo + h + d, dh - d), sum);
    }
    const float dot = ReduceAdd(sum);
    if (simt::Lane() == 0) delta[unit] = dot;
  });
}

template <int kChunks>
cudaError_t LaunchGrads(cudaStream_t stream, const Call& c, std::int64_t sequences) {
  const std::size_t shared_bytes = Shared::Bytes(c.a.head_dim);
  const auto blocks = static_cast<unsigned>(sequences * c.tiles);
  const cudaError_t error =
      simt::Launch(stream, {blocks, kThreads, shared_bytes, static_cast<unsigned>(c.a.heads)},
                   QueryGrads<kChunks>, c);
  if (error != cudaSuccess) return error;
  return simt::Launch(stream, {blocks, kThreads, shared_bytes, static_cast<unsigned>(c.a.kv_heads)},
                      KeyGrads<kChunks>, c);
}

}  // namespace

std::size_t AttentionBackwardScratchBytes(std::int64_t t, std::int64_t heads) {
  return static_cast<std::size_t>(t * heads) * sizeof(float);
}

cudaError_t AttentionBackward(cudaStream_t stream, const AttentionBackwardArgs& args,
                              const Sequences& sequences, void* scratch) {
  const std::int64_t dh = args.head_dim;
  if (args.kv_heads <= 0 || args.heads <= 0 || args.heads % args.kv_heads != 0 || dh <= 0 ||
      dh % 8 != 0 || dh > kMaxHeadDim) {
    return cudaErrorInvalidValue;
  }
  if (args.t == 0 || sequences.count == 0) return cudaSuccess;
  auto* delta = static_cast<float*>(scratch);
  const Call call{args, sequences.begin, (sequences.max_length + kTile - 1) / kTile, delta};
  const cudaError_t error =
      simt::Launch(stream, {BlocksFor(args.t * args.heads, kGroups), kBlock}, Deltas, args, delta);
  if (error != cudaSuccess) return error;
  if (dh <= kDims) return LaunchGrads<1>(stream, call, sequences.count);
  if (dh <= 2 * kDims) return LaunchGrads<2>(stream, call, sequences.count);
  return LaunchGrads<4>(stream, call, sequences.count);
}

}  // namespace thresher::kernels::cuda
