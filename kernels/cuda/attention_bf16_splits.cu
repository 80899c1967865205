#include "kernels/cuda/attention_bf16_forms.cuh"
#include "kernels/cuda/attention_bf16_split.cuh"
#include "kernels/cuda/prefix_max.cuh"

// The forms for few rows: a warpgroup takes the heads of a group through some splits of a row,
// leaves what it finds, and a second kernel folds it.
namespace thresher::kernels::cuda {
namespace {

constexpr int kFoldThreads = 128;

// What every split of every row found: the scratch memory, laid out as AttentionScratchBytes
// counts.
struct SplitsTask {
  AttentionArgs a;
  float scale;          // c
  std::int64_t splits;  // of a row
  int parts;            // of a group's heads, a warpgroup's columns each
  float2* softmax;      // [T, H, splits]: m, l
  float* values;        // [T, H, splits, Dh]
};

// Splits of a row; 0: none, or one that the launch was not made for.
THRESHER_DEVICE std::int64_t SplitsOfRow(const AttentionArgs& a, std::int64_t row) {
  const std::int64_t position = a.rows.position[row];
  return position < 0 || position >= a.max_positions ? 0 : position / kBf16Split + 1;
}

#if THRESHER_HOPPER_CODE
// The heads of a block: [head, head + count) of a row.
struct HeadsPlace {
  std::int64_t row, kv_head, head;
  int count;
};

template <class Shape>
THRESHER_DEVICE HeadsPlace PlaceOf(const SplitsTask& task) {
  const std::int64_t group = task.a.heads / task.a.kv_heads;
  const std::int64_t unit = blockIdx.x / task.parts, part = blockIdx.x % task.parts;
  HeadsPlace place;
  place.row = unit / task.a.kv_heads;
  place.kv_head = unit % task.a.kv_heads;
  place.head = place.kv_head * group + part * Shape::kColumns;
  const std::int64_t left = group - part * Shape::kColumns;
  place.count = static_cast<int>(left < Shape::kColumns ? left : Shape::kColumns);
  return place;
}

// Where the partial results of the block's first head lie, in splits.
THRESHER_DEVICE std::int64_t SlotOf(const SplitsTask& task, const HeadsPlace& place, int split) {
  return (place.row * task.a.heads + place.head) * task.splits + split;
}

template <class Shape>
THRESHER_DEVICE void LeaveValues(const SplitsTask& task, const HeadsPlace& place, int split,
                                 const GroupPlace& me, int tile,
                                 const hopper::Fragment<Shape::kColumns>& found) {
  float* to = task.values + SlotOf(task, place, split) * task.a.head_dim;
  const std::int64_t next_head = task.splits * task.a.head_dim;
  THRESHER_UNROLL
  for (int i = 0; i < Shape::kColumns / 2; ++i) {
    const int column = me.Column(i / 4) + i % 2, dim = 64 * tile + me.Row() + i / 2 % 2 * 8;
    const float value = found.Get(i);
    if (column < place.count && dim < task.a.head_dim) to[column * next_head + dim] = value;
  }
}

// One split, whose keys and values have come. Every column sees the same of it.
template <class Shape>
THRESHER_DEVICE void AttendSplit(const SplitsTask& task, const HeadsPlace& place,
                                 const AttentionShared<Shape>& at, const GroupPlace& me, int split,
                                 int stage, bool masked) {
  auto& columns = at.columns[0];
  const int c = me.thread;
  {
    hopper::Fragment<Shape::kColumns> scores;
    MultiplyKeys<Shape>(at.Keys(stage), at.queries, scores);
    FindBest<Shape>(me, columns, split, masked, scores, columns);
    me.Meet();
    if (c < Shape::kColumns) {
      columns.split_best[c] =
          simt::Mul(BestOfWarps(&columns.warp_best[0][c], Shape::kColumns), task.scale);
    }
    me.Meet();
    Weigh<Shape>(me, task.scale, split, masked, scores, columns, at.weights);
  }
  hopper::FenceProxy();
  me.Meet();
  if (c < place.count) {
    task.softmax[SlotOf(task, place, split) + c * task.splits] = {
        columns.split_best[c], SumOfWarps(&columns.warp_sum[0][c], Shape::kColumns)};
  }
  THRESHER_UNROLL
  for (int tile = 0; tile < Shape::kDimTiles; ++tile) {
    hopper::Fragment<Shape::kColumns> found;
    hopper::FenceSums();
    StartValues<Shape>(at.Values(stage), tile, at.weights, found);
    hopper::Commit();
    hopper::Await<0>();
    hopper::Settle(found);
    LeaveValues<Shape>(task, place, split, me, tile, found);
  }
}
#endif  // THRESHER_HOPPER_CODE

// Block (x, y): row, KV head and part of its group x; splits y, y + gridDim.y, ...
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) Splits(SplitsTask task) {
#if THRESHER_HOPPER_CODE
  const AttentionArgs& a = task.a;
  const HeadsPlace place = PlaceOf<Shape>(task);
  const std::int64_t splits = SplitsOfRow(a, place.row);
  if (blockIdx.y >= splits) return;
  const AttentionShared<Shape> at(simt::SharedMemory<unsigned char>());
  const GroupPlace me;
  const std::int64_t position = a.rows.position[place.row];
  const SplitSource source = SourceOf(a, place.row, place.kv_head, position);
  ClearStages<Shape>(at, a.head_dim);
  int split = static_cast<int>(blockIdx.y);
  StartSplit<Shape>(at, source, split, 0);
  if (me.thread < Shape::kColumns) {
    at.columns[0].position[me.thread] = static_cast<std::int32_t>(position);
  }
  const float* q = a.q + place.row * a.ldq + place.head * a.head_dim;
  LoadQueries<Shape>(at.queries, static_cast<int>(a.head_dim), [&](int column) {
    return column < place.count ? q + column * a.head_dim : nullptr;
  });
  for (int stage = 0; split < splits; split += static_cast<int>(gridDim.y), stage ^= 1) {
    hopper::AwaitPieces<0>();
    hopper::FenceProxy();
    __syncthreads();  // this split is there, the one before has been used
    const int next = split + static_cast<int>(gridDim.y);
    if (next < splits) StartSplit<Shape>(at, source, next, stage ^ 1);
    const bool masked = position < (split + 1) * kBf16Split - 1;
    AttendSplit<Shape>(task, place, at, me, split, stage, masked);
  }
#endif
}

// Shared memory of a block of the fold.
struct FoldShared {
  RunningMax warps[kFoldThreads / 32];
  float best[kFoldThreads + 1];  // M; [0]: before these splits
  float2 factor[kFoldThreads];
  float sum[kFoldThreads];
};

// The factors of the splits [begin, begin + count) of a row: all at once, a thread a split.
THRESHER_DEVICE void FindFactors(const float2* softmax, std::int64_t begin, int count,
                                 FoldShared* shared) {
  const int i = static_cast<int>(threadIdx.x);
  const float2 here = i < count ? softmax[begin + i] : float2{-__builtin_inff(), 0.0f};
  const RunningMax prefix = PrefixMax(RunningMaxOf(here.x), shared->warps);
  const float before = shared->best[0];
  shared->best[i + 1] = prefix.holds_nan == 0 && before > prefix.value ? before : prefix.value;
  __syncthreads();
  if (i < count) {
    shared->factor[i] = FoldFactors(shared->best[i], here.x, shared->best[i + 1]);
    shared->sum[i] = here.y;
  }
  __syncthreads();
}

// A block a row and head: its splits folded ascending, a dimension a thread.
__global__ void __launch_bounds__(kFoldThreads) Fold(SplitsTask task) {
  static_assert(kBf16AttentionMostDim <= kFoldThreads);
  const AttentionArgs& a = task.a;
  const std::int64_t unit = blockIdx.x, row = unit / a.heads, splits = SplitsOfRow(a, row);
  if (a.rows.position[row] < 0) return;
  auto* shared = simt::SharedMemory<FoldShared>();
  const int thread = static_cast<int>(threadIdx.x);
  float best = -__builtin_inff(), sum = 0, value = 0;
  for (std::int64_t begin = 0; begin < splits; begin += kFoldThreads) {
    const int count =
        splits - begin < kFoldThreads ? static_cast<int>(splits - begin) : kFoldThreads;
    if (thread == 0) shared->best[0] = best;
    __syncthreads();
    FindFactors(task.softmax + unit * task.splits, begin, count, shared);
    const float* found = task.values + (unit * task.splits + begin) * a.head_dim + thread;
#pragma unroll 4
    for (int i = 0; i < count; ++i, found += a.head_dim) {
      const float2 factor = shared->factor[i];
      sum = simt::Fma(sum, factor.x, simt::Mul(shared->sum[i], factor.y));
      if (thread < a.head_dim) value = simt::Fma(value, factor.x, simt::Mul(*found, factor.y));
    }
    best = shared->best[count];
    __syncthreads();
  }
  if (splits == 0) sum = simt::FloatOf(kNotANumber);
  float* out = a.out + row * a.ldo + unit % a.heads * a.head_dim;
  if (thread < a.head_dim) out[thread] = Result(value, simt::Div(1.0f, sum));
  if (a.lse != nullptr && thread == 0) a.lse[unit] = simt::Fma(best, kLn2, Log(sum));
}

template <class Shape>
cudaError_t Launch(cudaStream_t stream, SplitsTask task) {
  const AttentionArgs& a = task.a;
  const std::int64_t group = a.heads / a.kv_heads;
  task.parts = static_cast<int>((group + Shape::kColumns - 1) / Shape::kColumns);
  // Enough blocks for some rounds over a large device; empty ones cost time too.
  constexpr std::int64_t kBlocks = 2048, kMostY = 65535;
  const std::int64_t units = a.rows.t * a.kv_heads * task.parts;
  std::int64_t share = (kBlocks + units - 1) / units;
  share = share < task.splits ? share : task.splits;
  return simt::Launch(
      stream,
      {static_cast<unsigned>(units), Shape::kThreads, AttentionShared<Shape>::kBytes,
       static_cast<unsigned>(share < kMostY ? share : kMostY)},
      Splits<Shape>, task);
}

template <int kDimTiles>
cudaError_t LaunchColumns(cudaStream_t stream, const SplitsTask& task, int columns) {
  switch (columns) {
    case 8:
      return Launch<AttentionShape<kDimTiles, 1, 8>>(stream, task);
    case 16:
      return Launch<AttentionShape<kDimTiles, 1, 16>>(stream, task);
    case 32:
      return Launch<AttentionShape<kDimTiles, 1, 32>>(stream, task);
    default:
      return Launch<AttentionShape<kDimTiles, 1, 64>>(stream, task);
  }
}

}  // namespace

cudaError_t AttentionBf16Splits(cudaStream_t stream, const AttentionArgs& a, float scale,
                                int columns, void* scratch) {
  const std::int64_t splits = (a.max_positions + kBf16Split - 1) / kBf16Split;
  auto* values = static_cast<float*>(scratch);
  auto* softmax = reinterpret_cast<float2*>(values + a.rows.t * a.heads * splits * a.head_dim);
  const SplitsTask task{a, scale, splits, 1, softmax, values};
  const cudaError_t error = a.head_dim <= 64 ? LaunchColumns<1>(stream, task, columns)
                                             : LaunchColumns<2>(stream, task, columns);
  if (error != cudaSuccess) return error;
  return simt::Launch(stream,
                      {static_cast<unsigned>(a.rows.t * a.heads), kFoldThreads, sizeof(FoldShared)},
                      Fold, task);
}

}  // namespace thresher::kernels::cuda
