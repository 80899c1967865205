#include "kernels/cuda/attention_bf16_forms.cuh"
#include "kernels/cuda/attention_bf16_split.cuh"
#include "kernels/cuda/query_run.cuh"

// The form for many rows: two warpgroups with 64 queries each go through a context together, so
// that keys and values are read once for 128 queries.
namespace thresher::kernels::cuda {
namespace {

template <int kDimTiles>
using RowsShape = AttentionShape<kDimTiles, 2, 64>;

struct RowsTask {
  AttentionArgs a;
  float scale;  // c
};

#if THRESHER_HOPPER_CODE
// What a run has in common.
struct RunPlace {
  QueryRun run;
  SplitSource source;
  std::int64_t kv_head, group;

  // Whether some query of the run does not see all of the split.
  THRESHER_DEVICE bool Masked(int split) const {
    return run.first_position < (split + 1) * kBf16Split - 1;
  }
};

// The sums of a thread's values over the splits so far.
template <class Shape>
struct RunningValues {
  float values[Shape::kDimTiles][Shape::kColumns / 2];
};

// The warpgroup's columns: queries [first, first + kColumns) as far as they belong to the run.
template <class Shape>
THRESHER_DEVICE void PlaceColumns(const AttentionArgs& a, const RunPlace& place,
                                  const AttentionShared<Shape>& at, const GroupPlace& me) {
  auto& columns = at.columns[me.group];
  const std::int64_t first = place.run.begin + me.group * Shape::kColumns;
  const auto head_of = [&](std::int64_t query) {
    return (place.kv_head * place.group + query % place.group) * a.head_dim;
  };
  if (me.thread < Shape::kColumns) {
    const std::int64_t query = first + me.thread, row = query / place.group;
    const bool there = query < place.run.end;
    columns.position[me.thread] = there ? a.rows.position[row] : -1;
    columns.out[me.thread] = there ? a.out + row * a.ldo + head_of(query) : nullptr;
  }
  LoadQueries<Shape>(at.queries + me.group * Shape::kQueryBytes, static_cast<int>(a.head_dim),
                     [&](int column) -> const float* {
                       const std::int64_t query = first + column;
                       if (query >= place.run.end) return nullptr;
                       return a.q + query / place.group * a.ldq + head_of(query);
                     });
}

// Column c's m and the factors of its fold, by its thread.
template <class Shape>
THRESHER_DEVICE void PrepareFold(float scale, int split, int c,
                                 ColumnState<Shape::kColumns>& columns, RunningColumn& running) {
  if (Seen(columns.position[c], split) == 0) {
    columns.split_best[c] = 0;
    columns.factor[c] = {1, 0};
    return;
  }
  const float best = simt::Mul(BestOfWarps(&columns.warp_best[0][c], Shape::kColumns), scale);
  const float joint = Largest::Join(running.best, best);
  columns.split_best[c] = best;
  columns.factor[c] = FoldFactors(running.best, best, joint);
  running.best = joint;
}

// What one split found for 64 dimensions, folded into `running`.
template <class Shape>
THRESHER_DEVICE void FoldValues(const GroupPlace& me, const ColumnState<Shape::kColumns>& columns,
                                const hopper::Fragment<Shape::kColumns>& found,
                                float (&running)[Shape::kColumns / 2]) {
  THRESHER_UNROLL
  for (int b = 0; b < Shape::kColumns / 8; ++b) {
    const auto factors = simt::LoadAs<float4>(columns.factor + me.Column(b));
    THRESHER_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float x = i % 2 == 0 ? factors.x : factors.z, y = i % 2 == 0 ? factors.y : factors.w;
      float& value = running[4 * b + i];
      value = simt::Fma(value, x, simt::Mul(found.Get(4 * b + i), y));
    }
  }
}

// One split, whose keys and values have come.
template <class Shape>
THRESHER_DEVICE void AttendSplit(const RowsTask& task, const AttentionShared<Shape>& at,
                                 const GroupPlace& me, int split, bool masked,
                                 RunningColumn& column, RunningValues<Shape>& running) {
  const int stage = split % Shape::kStages, c = me.thread;
  auto& columns = at.columns[me.group];
  unsigned char* weights = at.weights + me.group * Shape::kWeightBytes;
  {
    hopper::Fragment<Shape::kColumns> scores;
    MultiplyKeys<Shape>(at.Keys(stage), at.queries + me.group * Shape::kQueryBytes, scores);
    FindBest<Shape>(me, columns, split, masked, scores, columns);
    me.Meet();
    if (c < Shape::kColumns) PrepareFold<Shape>(task.scale, split, c, columns, column);
    me.Meet();
    Weigh<Shape>(me, task.scale, split, masked, scores, columns, weights);
  }
  hopper::FenceProxy();
  me.Meet();
  if (c < Shape::kColumns) {
    const float sum = SumOfWarps(&columns.warp_sum[0][c], Shape::kColumns);
    const float2 factor = columns.factor[c];
    column.sum = simt::Fma(column.sum, factor.x, simt::Mul(sum, factor.y));
  }
  THRESHER_UNROLL
  for (int tile = 0; tile < Shape::kDimTiles; ++tile) {
    hopper::Fragment<Shape::kColumns> found;
    hopper::FenceSums();
    StartValues<Shape>(at.Values(stage), tile, weights, found);
    hopper::Commit();
    hopper::Await<0>();
    hopper::Settle(found);
    FoldValues<Shape>(me, columns, found, running.values[tile]);
  }
}

template <class Shape>
THRESHER_DEVICE void Finish(const AttentionArgs& a, const RunPlace& place, const GroupPlace& me,
                            ColumnState<Shape::kColumns>& columns, const RunningColumn& column,
                            const RunningValues<Shape>& running) {
  me.Meet();  // the last factors have been read
  const std::int64_t query = place.run.begin + me.group * Shape::kColumns + me.thread;
  if (me.thread < Shape::kColumns && query < place.run.end) {
    columns.factor[me.thread].x = simt::Div(1.0f, column.sum);
    if (a.lse != nullptr) {
      const std::int64_t head = place.kv_head * place.group + query % place.group;
      a.lse[query / place.group * a.heads + head] = simt::Fma(column.best, kLn2, Log(column.sum));
    }
  }
  me.Meet();
  THRESHER_UNROLL
  for (int tile = 0; tile < Shape::kDimTiles; ++tile) {
    THRESHER_UNROLL
    for (int i = 0; i < Shape::kColumns / 2; ++i) {
      const int n = me.Column(i / 4) + i % 2, dim = 64 * tile + me.Row() + i / 2 % 2 * 8;
      if (columns.out[n] == nullptr || dim >= a.head_dim) continue;
      columns.out[n][dim] = Result(running.values[tile][i], columns.factor[n].x);
    }
  }
}

// The results of rows that see a value that is no finite number, which was taken out of a split
// that other rows do not see whole: no such result is finite. By the whole block.
THRESHER_DEVICE void SpoilResults(const AttentionArgs& a, const RunPlace& place) {
  const SplitSource& from = place.source;
  __syncthreads();  // the results are there
  for (std::int64_t query = place.run.begin; query < place.run.end; ++query) {
    const std::int64_t row = query / place.group;
    const std::int64_t head = place.kv_head * place.group + query % place.group;
    const auto dim = static_cast<int>(threadIdx.x);
    if (dim >= from.head_dim) continue;
    std::int64_t at = (place.run.first_position + 1) / kBf16Split * kBf16Split;
    for (; at <= a.rows.position[row]; ++at) {
      const std::uint16_t* v = from.v + PageAt(from, at);
      if (IsFinite16(v[at % kKvPageSize * from.head_dim + dim])) continue;
      a.out[row * a.ldo + head * a.head_dim + dim] = simt::FloatOf(kNotANumber);
    }
  }
}

// All of the context for one run. Splits come one ahead: while one is worked on the next is copied.
template <class Shape>
THRESHER_DEVICE void AttendRun(const RowsTask& task, const RunPlace& place,
                               const AttentionShared<Shape>& at, const GroupPlace& me) {
  const auto splits = static_cast<int>(place.run.last_position / kBf16Split) + 1;
  __syncthreads();  // the run before this one has used all that is written now
  StartSplit<Shape>(at, place.source, 0, 0);
  PlaceColumns<Shape>(task.a, place, at, me);
  if (threadIdx.x == 0) *at.not_finite = 0;
  RunningColumn column;
  RunningValues<Shape> running;
  THRESHER_UNROLL
  for (auto& tile : running.values) {
    THRESHER_UNROLL
    for (float& value : tile) value = 0;
  }
  for (int split = 0; split < splits; ++split) {
    const int stage = split % Shape::kStages;
    hopper::AwaitPieces<0>();
    hopper::FenceProxy();
    __syncthreads();  // this split is there, the one before has been used
    if (split + 1 < splits) StartSplit<Shape>(at, place.source, split + 1, stage ^ 1);
    const bool masked = place.Masked(split);
    if (masked) {
      if (TakeOutNotFinite<Shape>(at.Values(stage))) *at.not_finite = 1;
      hopper::FenceProxy();
      __syncthreads();
    }
    AttendSplit<Shape>(task, at, me, split, masked, column, running);
  }
  Finish<Shape>(task.a, place, me, at.columns[me.group], column, running);
  if (*at.not_finite != 0) SpoilResults(task.a, place);
}
#endif  // THRESHER_HOPPER_CODE

// Block (x, y): queries [128 x, 128 x + 128) of KV head y.
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) Rows(RowsTask task) {
#if THRESHER_HOPPER_CODE
  const AttentionArgs& a = task.a;
  const AttentionShared<Shape> at(simt::SharedMemory<unsigned char>());
  const GroupPlace me;
  ClearStages<Shape>(at, a.head_dim);
  RunPlace place{{}, {}, blockIdx.y, a.heads / a.kv_heads};
  const std::int64_t all = a.rows.t * place.group;
  std::int64_t query = std::int64_t{blockIdx.x} * Shape::kQueries;
  const std::int64_t end = all - query < Shape::kQueries ? all : query + Shape::kQueries;
  while (query < end) {
    const std::int64_t row = query / place.group;
    if (a.rows.position[row] < 0) {
      query = (row + 1) * place.group;
      continue;
    }
    place.run = QueryRunFrom(a.rows, place.group, query, end);
    place.source = SourceOf(a, row, place.kv_head, place.run.last_position);
    AttendRun<Shape>(task, place, at, me);
    query = place.run.end;
  }
#endif
}

template <class Shape>
cudaError_t Launch(cudaStream_t stream, const RowsTask& task) {
  const AttentionArgs& a = task.a;
  const std::int64_t queries = a.rows.t * (a.heads / a.kv_heads);
  return simt::Launch(
      stream,
      {static_cast<unsigned>((queries + Shape::kQueries - 1) / Shape::kQueries), Shape::kThreads,
       AttentionShared<Shape>::kBytes, static_cast<unsigned>(a.kv_heads)},
      Rows<Shape>, task);
}

}  // namespace

cudaError_t AttentionBf16Rows(cudaStream_t stream, const AttentionArgs& args, float scale) {
  const RowsTask task{args, scale};
  return args.head_dim <= 64 ? Launch<RowsShape<1>>(stream, task)
                             : Launch<RowsShape<2>>(stream, task);
}

}  // namespace thresher::kernels::cuda
