#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_splits.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/query_run.cuh"

// The form for many rows, and the choice.
namespace thresher::kernels::cuda {
namespace {

constexpr int kPer = 4;  // queries of a group of threads
using RowsTile = Tile<kPer>;

// The online softmax of a group's queries: kChunks x 4 dimensions a thread.
template <int kChunks>
struct Running {
  float maximum[kPer], sum[kPer], values[kPer][kChunks][4];
};

// The split that `tile` holds, folded into `running`.
template <int kChunks>
__device__ void FoldSplit(const RowsTile& tile, const SplitFound<kPer>& found, bool first,
                          Running<kChunks>* running) {
  float old_scale[kPer], new_scale[kPer];
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (found.valid[i] == 0) continue;
    const float before = running->maximum[i], here = found.maximum[i];
    const float joint = !first && before > here ? before : here;
    running->maximum[i] = joint;
    if (first) continue;
    old_scale[i] = Exp(simt::Sub(before, joint));
    new_scale[i] = Exp(simt::Sub(here, joint));
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (found.valid[i] == 0) continue;
    running->sum[i] =
        first ? found.sum[i]
              : simt::Fma(running->sum[i], old_scale[i], simt::Mul(found.sum[i], new_scale[i]));
  }
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int c = chunk * kChunk + simt::Lane() * 4;
    if (c >= tile.head_dim) continue;
    float values[kPer][4];
    WeighValues(tile, found, c, values);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      if (found.valid[i] == 0) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& value = running->values[i][chunk][e];
        value = first ? values[i][e]
                      : simt::Fma(value, old_scale[i], simt::Mul(values[i][e], new_scale[i]));
      }
    }
  }
}

// Row, head and position of a group's queries; position -1: none.
struct GroupQueries {
  std::int64_t row[kPer], head[kPer], position[kPer];
};

__device__ GroupQueries QueriesOf(const AttentionArgs& a, const QueryRun& run,
                                  std::int64_t kv_head) {
  const std::int64_t group = a.heads / a.kv_heads;
  GroupQueries queries;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const std::int64_t e = run.begin + GroupOfBlock() * kPer + i;
    queries.row[i] = e / group;
    queries.head[i] = kv_head * group + e % group;
    queries.position[i] = e < run.end ? a.rows.position[e / group] : -1;
  }
  return queries;
}

template <int kChunks>
__device__ void Finish(const AttentionArgs& a, const GroupQueries& queries,
                       const Running<kChunks>& running) {
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (queries.position[i] < 0) continue;
    const float inverse = simt::Div(1.0f, running.sum[i]);
    float* out = a.out + queries.row[i] * a.ldo + queries.head[i] * a.head_dim;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int c = chunk * kChunk + simt::Lane() * 4;
      if (c >= a.head_dim) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) out[c + e] = simt::Mul(running.values[i][chunk][e], inverse);
    }
    if (a.lse != nullptr && simt::Lane() == 0) {
      a.lse[queries.row[i] * a.heads + queries.head[i]] =
          simt::Add(running.maximum[i], Log(running.sum[i]));
    }
  }
}

// All of the context for one run.
template <KvType kType, int kChunks>
__device__ void AttendRun(const AttentionArgs& a, const RowsTile& tile, const QueryRun& run,
                          std::int64_t kv_head) {
  const std::int64_t group = a.heads / a.kv_heads, dh = a.head_dim;
  const std::int32_t* table = TableOf(a.rows, run.begin / group);
  const GroupQueries queries = QueriesOf(a, run, kv_head);
  __syncthreads();  // the run before this one has used the tile
  for (std::int64_t i = threadIdx.x; i < (run.end - run.begin) * dh; i += kTileThreads) {
    const std::int64_t e = run.begin + i / dh;
    tile.q[i] = a.q[e / group * a.ldq + (kv_head * group + e % group) * dh + i % dh];
  }
  Running<kChunks> running;
  for (std::int64_t split = 0; split * kSplit <= run.last_position; ++split) {
    const SplitPages pages = PagesOf(a.kv, table, split, run.last_position, kv_head, dh);
    SplitFound<kPer> found;
    int seen = 0;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const std::int64_t valid = queries.position[i] - split * kSplit + 1;
      found.valid[i] = valid < 0 ? 0 : valid > kSplit ? kSplit : static_cast<int>(valid);
      seen |= found.valid[i];
    }
    LoadKeys<kType>(a.kv, pages, dh, tile.pages);
    __syncthreads();
    if (seen != 0) ScoreSplit(tile, a.scale, &found);
    __syncthreads();
    LoadValues<kType>(a.kv, pages, dh, tile.pages);
    __syncthreads();
    if (seen != 0) FoldSplit(tile, found, split == 0, &running);
    __syncthreads();
  }
  Finish(a, queries, running);
}

// Block (x, y): queries [32x, 32x + 32) of KV head y.
template <KvType kType, int kChunks>
__global__ void __launch_bounds__(kTileThreads) Rows(AttentionArgs a) {
  const std::int64_t group = a.heads / a.kv_heads, all = a.rows.t * group;
  const RowsTile tile(simt::SharedMemory<float>(), a.head_dim);
  std::int64_t query = std::int64_t{blockIdx.x} * RowsTile::kQueries;
  const std::int64_t end = all - query < RowsTile::kQueries ? all : query + RowsTile::kQueries;
  while (query < end) {
    if (a.rows.position[query / group] < 0) {
      query = (query / group + 1) * group;
      continue;
    }
    const QueryRun run = QueryRunFrom(a.rows, group, query, end);
    AttendRun<kType, kChunks>(a, tile, run, blockIdx.y);
    query = run.end;
  }
}

template <KvType kType>
cudaError_t LaunchRows(cudaStream_t stream, const AttentionArgs& a) {
  const std::int64_t queries = a.rows.t * (a.heads / a.kv_heads);
  const simt::Shape shape{
      static_cast<unsigned>((queries + RowsTile::kQueries - 1) / RowsTile::kQueries), kTileThreads,
      RowsTile::SharedBytes(a.head_dim), static_cast<unsigned>(a.kv_heads)};
  if (a.head_dim <= kChunk) return simt::Launch(stream, shape, Rows<kType, 1>, a);
  if (a.head_dim <= 2 * kChunk) return simt::Launch(stream, shape, Rows<kType, 2>, a);
  return simt::Launch(stream, shape, Rows<kType, 4>, a);
}

}  // namespace

cudaError_t Attention(cudaStream_t stream, const AttentionArgs& args,
                      const AttentionScratch& scratch, AttentionForm form) {
  const std::int64_t dh = args.head_dim;
  if (args.kv_heads <= 0 || args.heads <= 0 || args.heads % args.kv_heads != 0 || dh <= 0 ||
      dh % 8 != 0 || dh > kMaxHeadDim) {
    return cudaErrorInvalidValue;
  }
  if (args.rows.t == 0) return cudaSuccess;
  const bool fits =
      args.max_positions > 0 &&
      scratch.bytes >= AttentionScratchBytes(args.rows.t, args.heads, dh, args.max_positions);
  if (form == AttentionForm::kSplits && !fits) return cudaErrorInvalidValue;
  if (form == AttentionForm::kRows || !fits) {
    return args.kv.type == KvType::kF32 ? LaunchRows<KvType::kF32>(stream, args)
                                        : LaunchRows<KvType::kBf16>(stream, args);
  }
  return AttentionSplits(stream, args, scratch.data);
}

}  // namespace thresher::kernels::cuda
