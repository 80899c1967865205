#include "kernels/cuda/attention_bf16_backward.h"
#include "kernels/cuda/attention_bf16_grad.cuh"
#include "kernels/cuda/attention_bf16_split.cuh"

// Two kernels: a block has 128 queries, or 128 keys, 64 to a warpgroup, and what they meet goes by
// in tiles of 64, one ahead. Probabilities and score gradients of a tile are computed where they
// are needed, once for dq and once for dk and dv, and never stored.
namespace thresher::kernels::cuda {
namespace {

#if THRESHER_HOPPER_CODE
constexpr int kTile = kGradTile;

// The operands of 64 keys and 64 queries.
struct PairOperands {
  const unsigned char *k, *v, *q, *dout;
  const float2* of_query;
  int key, query;  // the first ones' positions
};

// S^T into `s` and, unless it is null, P^T into `p`, tiles [64 keys][64 queries], rounded. By a
// warpgroup, which meets behind it.
template <class Shape>
THRESHER_DEVICE void WeighPairs(const GradTask& task, const GroupPlace& me, const PairOperands& at,
                                int length, unsigned char* p, unsigned char* s) {
  hopper::Fragment<kTile> scores, products;
  MultiplyKeys<Shape>(at.k, at.q, scores);
  MultiplyKeys<Shape>(at.v, at.dout, products);
  const float c = task.from.c, scale = task.from.scale;
  THRESHER_UNROLL
  for (int b = 0; b < kTile / 8; ++b) {
    const auto of = simt::LoadAs<float4>(at.of_query + me.Column(b));
    float weight[4], grad[4];
    THRESHER_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float lse = i % 2 == 0 ? of.x : of.z, delta = i % 2 == 0 ? of.y : of.w;
      const int key = at.key + me.Row() + i / 2 * 8, query = at.query + me.Column(b) + i % 2;
      const bool seen = key <= query && query < length;
      const float one = hopper::Exp2(simt::Fma(scores.Get(4 * b + i), c, -lse));
      const float inner = simt::Sub(products.Get(4 * b + i), delta);
      weight[i] = seen ? one : 0.0f;
      grad[i] = seen ? simt::Mul(simt::Mul(one, inner), scale) : 0.0f;
    }
    const int place = UnitAt(me.Row(), b, 0) + me.lane % 4 * 4;
    constexpr int kEightRows = 8 * hopper::kStepBytes;
    simt::StoreAs(s + place, Bf16Pair(grad[0], grad[1]));
    simt::StoreAs(s + place + kEightRows, Bf16Pair(grad[2], grad[3]));
    if (p == nullptr) continue;
    simt::StoreAs(p + place, Bf16Pair(weight[0], weight[1]));
    simt::StoreAs(p + place + kEightRows, Bf16Pair(weight[2], weight[3]));
  }
  hopper::FenceProxy();
  me.Meet();
}

// sums += A B over 64: A [64, 64] in one tile, B [Dh, 64] contiguous along dimensions.
template <class Shape, bool kAcrossA>
THRESHER_DEVICE void Add(const unsigned char* a, const unsigned char* b, bool keep,
                         hopper::Fragment<Shape::kDims>& sums) {
  const std::uint32_t left = hopper::SharedAddress(a), right = hopper::SharedAddress(b);
  hopper::FenceSums();
  THRESHER_UNROLL
  for (std::uint32_t i = 0; i < kTile / 16; ++i) {
    hopper::Multiply<kAcrossA, true>(
        sums, hopper::TileDescriptor(left + i * (kAcrossA ? 2048 : 32), kGradTileBytes, 1024),
        hopper::TileDescriptor(right + i * 2048, kGradTileBytes, 1024), keep || i > 0);
  }
  hopper::Commit();
}
template <int kDims>
THRESHER_DEVICE void Finish(hopper::Fragment<kDims>& sums) {
  hopper::Await<0>();
  hopper::Settle(sums);
}

// The warpgroup's rows that there are, `row` the first one's place in the sequence.
template <class Shape>
THRESHER_DEVICE void StoreRows(const GroupPlace& me, const GradPlace& place, int row, int head_dim,
                               const hopper::Fragment<Shape::kDims>& sums, float* to,
                               std::int64_t ld) {
  row += me.Row();
  float* const at = to + (place.begin + row) * ld + me.Column(0);
  const int rows = place.length - row, dims = head_dim - me.Column(0);
  THRESHER_UNROLL
  for (int i = 0; i < Shape::kDims / 2; ++i) {
    const int down = i / 2 % 2 * 8, right = 8 * (i / 4) + i % 2;
    const float value = sums.Get(i);
    if (down < rows && right < dims) at[down * ld + right] = value;
  }
}
#endif  // THRESHER_HOPPER_CODE

// Block (x, y): 128 queries of a sequence, head y.
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) QueryGrads(GradTask task) {
#if THRESHER_HOPPER_CODE
  const GradPlace place = GradPlace::Of<Shape>(task);
  if (place.first >= place.length) return;
  const GradShared<Shape> at(simt::SharedMemory<unsigned char>());
  const GroupPlace me;
  const int head = static_cast<int>(blockIdx.y), head_dim = task.from.head_dim;
  const int kv_head = head / (task.from.heads / task.from.kv_heads);
  const int behind = place.first + Shape::kRows;
  const int tiles = ((behind < place.length ? behind : place.length) + kTile - 1) / kTile;
  const int query = place.first + me.group * kTile;  // the warpgroup's first
  ClearMatrices<Shape>(at, head_dim);
  for (int group = 0; group < Shape::kGroups; ++group) {
    StartQueries<Shape>(task, place, head, place.first + group * kTile, at.Kept(group, 0),
                        at.Kept(group, 1), at.of_kept + group * kTile);
  }
  StartKeys<Shape>(task, place, kv_head, 0, at.Stage(0, 0), at.Stage(0, 1));
  hopper::CommitPieces();
  hopper::Fragment<Shape::kDims> dq;
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    hopper::AwaitPieces<0>();
    hopper::FenceProxy();
    __syncthreads();  // this tile is there, the one before has been used
    if (tile + 1 < tiles) {
      StartKeys<Shape>(task, place, kv_head, (tile + 1) * kTile, at.Stage(stage ^ 1, 0),
                       at.Stage(stage ^ 1, 1));
      hopper::CommitPieces();
    }
    if (tile * kTile > query || query >= place.length) continue;
    WeighPairs<Shape>(task, me,
                      {at.Stage(stage, 0), at.Stage(stage, 1), at.Kept(me.group, 0),
                       at.Kept(me.group, 1), at.of_kept + me.group * kTile, tile * kTile, query},
                      place.length, nullptr, at.Weights(me.group, 0));
    Add<Shape, true>(at.Weights(me.group, 0), at.Stage(stage, 0), tile > 0, dq);
    Finish(dq);
  }
  if (query < place.length) {
    StoreRows<Shape>(me, place, query, head_dim, dq, task.a.dq + head * head_dim, task.a.lddq);
  }
#endif
}

// Block (x, y): 128 keys of a sequence, KV head y.
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) KeyGrads(GradTask task) {
#if THRESHER_HOPPER_CODE
  const GradPlace place = GradPlace::Of<Shape>(task);
  if (place.first >= place.length) return;
  const GradShared<Shape> at(simt::SharedMemory<unsigned char>());
  const GroupPlace me;
  const int kv_head = static_cast<int>(blockIdx.y), head_dim = task.from.head_dim;
  const int group = task.from.heads / task.from.kv_heads;
  const int key = place.first + me.group * kTile;  // the warpgroup's first
  // Tiles of queries and heads of each: as many as go by.
  const int count = ((place.length - place.first + kTile - 1) / kTile) * group;
  const auto start = [&](int n) {
    StartQueries<Shape>(task, place, kv_head * group + n % group, place.first + n / group * kTile,
                        at.Stage(n % 2, 0), at.Stage(n % 2, 1), at.of_stage + n % 2 * kTile);
    hopper::CommitPieces();
  };
  ClearMatrices<Shape>(at, head_dim);
  for (int other = 0; other < Shape::kGroups; ++other) {
    StartKeys<Shape>(task, place, kv_head, place.first + other * kTile, at.Kept(other, 0),
                     at.Kept(other, 1));
  }
  start(0);
  hopper::Fragment<Shape::kDims> dk, dv;
  bool keep = false;
  for (int n = 0; n < count; ++n) {
    const int stage = n % 2, query = place.first + n / group * kTile;
    hopper::AwaitPieces<0>();
    hopper::FenceProxy();
    __syncthreads();  // this tile is there, the one before has been used
    if (n + 1 < count) start(n + 1);
    if (query < key || key >= place.length) continue;
    unsigned char *const p = at.Weights(me.group, 0), *const s = at.Weights(me.group, 1);
    WeighPairs<Shape>(task, me,
                      {at.Kept(me.group, 0), at.Kept(me.group, 1), at.Stage(stage, 0),
                       at.Stage(stage, 1), at.of_stage + stage * kTile, key, query},
                      place.length, p, s);
    Add<Shape, false>(p, at.Stage(stage, 1), keep, dv);
    Add<Shape, false>(s, at.Stage(stage, 0), keep, dk);
    Finish(dv);
    Finish(dk);
    keep = true;
  }
  if (key < place.length) {
    StoreRows<Shape>(me, place, key, head_dim, dk, task.a.dk + kv_head * head_dim, task.a.lddk);
    StoreRows<Shape>(me, place, key, head_dim, dv, task.a.dv + kv_head * head_dim, task.a.lddv);
  }
#endif
}

template <class Shape>
cudaError_t Launch(cudaStream_t stream, GradTask task, const Sequences& sequences) {
  constexpr std::size_t kBytes = GradShared<Shape>::kBytes;
  task.tiles = (sequences.max_length + Shape::kRows - 1) / Shape::kRows;
  const auto blocks = static_cast<unsigned>(sequences.count * task.tiles);
  const cudaError_t error =
      simt::Launch(stream, {blocks, Shape::kThreads, kBytes, static_cast<unsigned>(task.a.heads)},
                   QueryGrads<Shape>, task);
  if (error != cudaSuccess) return error;
  return simt::Launch(stream,
                      {blocks, Shape::kThreads, kBytes, static_cast<unsigned>(task.a.kv_heads)},
                      KeyGrads<Shape>, task);
}

}  // namespace

cudaError_t AttentionBackwardBf16(cudaStream_t stream, const AttentionBackwardArgs& args,
                                  const Sequences& sequences, void* scratch) {
  GradTask task{{}, args, 0};
  const cudaError_t error =
      MakeGradOperands(stream, args, sequences, scratch, /*sizes=*/false, &task.from);
  if (error != cudaSuccess || args.t == 0 || sequences.count == 0) return error;
  return args.head_dim <= 64 ? Launch<GradShape<1>>(stream, task, sequences)
                             : Launch<GradShape<2>>(stream, task, sequences);
}

}  // namespace thresher::kernels::cuda
