#include "kernels/cuda/attention_splits.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/prefix_max.cuh"

namespace thresher::kernels::cuda {
namespace {

// With the heads of a group for queries, more of them a thread would leave most threads idle.
constexpr int kPer = 2;
using SplitTile = Tile<kPer>;

// What every split of every row found: the scratch memory.
struct Partials {
  std::int64_t splits;  // of a row
  float2* softmax;      // [T, H, splits]: maximum, sum
  float* values;        // [T, H, splits, Dh]
};

std::int64_t SplitsOf(std::int64_t positions) { return (positions + kSplit - 1) / kSplit; }

// Splits of a row; 0: none, or one that the launch was not made for.
__device__ std::int64_t SplitsOfRow(const AttentionArgs& a, std::int64_t t) {
  const std::int64_t position = a.rows.position[t];
  return position < 0 || position >= a.max_positions ? 0 : position / kSplit + 1;
}

__device__ void StorePartial(const SplitTile& tile, const SplitFound<kPer>& found,
                             std::int64_t count, const Partials& to, std::int64_t first) {
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int query = GroupOfBlock() * kPer + i;
    if (query >= count || simt::Lane() != 0) continue;
    to.softmax[first + query * to.splits] = float2{found.maximum[i], found.sum[i]};
  }
  for (int c = simt::Lane() * 4; c < tile.head_dim; c += kChunk) {
    float values[kPer][4];
    WeighValues(tile, found, c, values);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int query = GroupOfBlock() * kPer + i;
      if (query >= count) continue;
      simt::StoreAs(to.values + (first + query * to.splits) * tile.head_dim + c,
                    float4{values[i][0], values[i][1], values[i][2], values[i][3]});
    }
  }
}

// One split for `count` heads from `head` on.
template <KvType kType>
__device__ void OneSplit(const AttentionArgs& a, const SplitTile& tile, std::int64_t t,
                         std::int64_t head, std::int64_t count, std::int64_t split,
                         const Partials& to) {
  const std::int64_t position = a.rows.position[t], kv_head = head / (a.heads / a.kv_heads);
  const SplitPages pages = PagesOf(a.kv, TableOf(a.rows, t), split, position, kv_head, a.head_dim);
  const std::int64_t seen = position - split * kSplit + 1;
  SplitFound<kPer> found;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    found.valid[i] = seen > kSplit ? kSplit : static_cast<int>(seen);
  }
  const bool busy = GroupOfBlock() * kPer < count;
  LoadKeys<kType>(a.kv, pages, a.head_dim, tile.pages);
  __syncthreads();
  if (busy) ScoreSplit(tile, a.scale, &found);
  __syncthreads();
  LoadValues<kType>(a.kv, pages, a.head_dim, tile.pages);
  __syncthreads();
  if (busy) StorePartial(tile, found, count, to, (t * a.heads + head) * to.splits + split);
  __syncthreads();
}

// Block (x, y): row and KV head x; splits y, y + gridDim.y, ...
template <KvType kType>
__global__ void __launch_bounds__(kTileThreads) Splits(AttentionArgs a, Partials to) {
  const std::int64_t t = blockIdx.x / a.kv_heads, kv_head = blockIdx.x % a.kv_heads;
  const std::int64_t splits = SplitsOfRow(a, t);
  if (blockIdx.y >= splits) return;
  const std::int64_t group = a.heads / a.kv_heads;
  const SplitTile tile(simt::SharedMemory<float>(), a.head_dim);
  for (std::int64_t h = 0; h < group; h += SplitTile::kQueries) {
    const std::int64_t head = kv_head * group + h;
    const std::int64_t count = group - h < SplitTile::kQueries ? group - h : SplitTile::kQueries;
    const float* q = a.q + t * a.ldq + head * a.head_dim;
    for (std::int64_t i = threadIdx.x; i < count * a.head_dim; i += kTileThreads) tile.q[i] = q[i];
    for (std::int64_t split = blockIdx.y; split < splits; split += gridDim.y) {
      OneSplit<kType>(a, tile, t, head, count, split, to);
    }
  }
}

// Shared memory of a block of the fold.
struct FoldShared {
  RunningMax warps[kTileThreads / 32];
  float maximum[kTileThreads + 1];  // [0]: before these splits
  float old_scale[kTileThreads], new_scale[kTileThreads], sum[kTileThreads];
};

// The factors of the splits [begin, begin + count) of a row: all at once, a thread a split.
__device__ void FoldScales(const float2* softmax, std::int64_t begin, int count,
                           FoldShared* shared) {
  const int i = static_cast<int>(threadIdx.x);
  const float2 here = i < count ? softmax[begin + i] : float2{-__builtin_inff(), 0.0f};
  const RunningMax prefix = PrefixMax(RunningMaxOf(here.x), shared->warps);
  const float before = shared->maximum[0];
  const bool carried = begin > 0 && prefix.holds_nan == 0 && before > prefix.value;
  shared->maximum[i + 1] = carried ? before : prefix.value;
  __syncthreads();
  if (i < count) {
    shared->old_scale[i] = Exp(simt::Sub(shared->maximum[i], shared->maximum[i + 1]));
    shared->new_scale[i] = Exp(simt::Sub(here.x, shared->maximum[i + 1]));
    shared->sum[i] = here.y;
  }
  __syncthreads();
}

// A block a row and head: its splits folded ascending, a dimension a thread.
__global__ void __launch_bounds__(kTileThreads) Fold(AttentionArgs a, Partials from) {
  constexpr int kDims = static_cast<int>(kMaxHeadDim) / kTileThreads;
  const std::int64_t unit = blockIdx.x, t = unit / a.heads, splits = SplitsOfRow(a, t);
  if (a.rows.position[t] < 0) return;
  auto* shared = simt::SharedMemory<FoldShared>();
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0, values[kDims] = {}, maximum = 0;
  for (std::int64_t begin = 0; begin < splits; begin += kTileThreads) {
    const int count =
        splits - begin < kTileThreads ? static_cast<int>(splits - begin) : kTileThreads;
    if (thread == 0) shared->maximum[0] = maximum;
    __syncthreads();
    FoldScales(from.softmax + unit * from.splits, begin, count, shared);
    const float* found = from.values + (unit * from.splits + begin) * a.head_dim;
#pragma unroll 4
    for (int i = 0; i < count; ++i, found += a.head_dim) {
      const bool first = begin + i == 0;
      const float old_scale = shared->old_scale[i], new_scale = shared->new_scale[i];
      sum =
          first ? shared->sum[i] : simt::Fma(sum, old_scale, simt::Mul(shared->sum[i], new_scale));
#pragma unroll
      for (int n = 0; n < kDims; ++n) {
        const int d = thread + n * kTileThreads;
        if (d >= a.head_dim) continue;
        values[n] =
            first ? found[d] : simt::Fma(values[n], old_scale, simt::Mul(found[d], new_scale));
      }
    }
    maximum = shared->maximum[count];
    __syncthreads();
  }
  if (splits == 0) sum = __int_as_float(0x7fc00000);
  const float inverse = simt::Div(1.0f, sum);
  float* out = a.out + t * a.ldo + unit % a.heads * a.head_dim;
  for (int n = 0; n < kDims; ++n) {
    const int d = thread + n * kTileThreads;
    if (d < a.head_dim) out[d] = simt::Mul(values[n], inverse);
  }
  if (a.lse != nullptr && thread == 0) a.lse[unit] = simt::Add(maximum, Log(sum));
}

template <KvType kType>
cudaError_t LaunchSplits(cudaStream_t stream, const AttentionArgs& a, const Partials& partials) {
  // Enough blocks for some rounds over a large device; empty ones cost time too.
  constexpr std::int64_t kBlocks = 4096, kMostY = 65535;
  const std::int64_t rows = a.rows.t * a.kv_heads;
  std::int64_t share = (kBlocks + rows - 1) / rows;
  share = share < partials.splits ? share : partials.splits;
  const simt::Shape shape{static_cast<unsigned>(rows), kTileThreads,
                          SplitTile::SharedBytes(a.head_dim),
                          static_cast<unsigned>(share < kMostY ? share : kMostY)};
  return simt::Launch(stream, shape, Splits<kType>, a, partials);
}

}  // namespace

std::size_t AttentionScratchBytes(std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
                                  std::int64_t max_positions) {
  const auto splits = static_cast<std::size_t>(rows * heads * SplitsOf(max_positions));
  return splits * (static_cast<std::size_t>(head_dim) * sizeof(float) + sizeof(float2));
}

cudaError_t AttentionSplits(cudaStream_t stream, const AttentionArgs& a, void* scratch) {
  const std::int64_t splits = SplitsOf(a.max_positions);
  auto* values = static_cast<float*>(scratch);
  const Partials partials{
      splits, reinterpret_cast<float2*>(values + a.rows.t * a.heads * splits * a.head_dim), values};
  const cudaError_t error = a.kv.type == KvType::kF32
                                ? LaunchSplits<KvType::kF32>(stream, a, partials)
                                : LaunchSplits<KvType::kBf16>(stream, a, partials);
  if (error != cudaSuccess) return error;
  return simt::Launch(stream,
                      {static_cast<unsigned>(a.rows.t * a.heads), kTileThreads, sizeof(FoldShared)},
                      Fold, a, partials);
}

}  // namespace thresher::kernels::cuda
