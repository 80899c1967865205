#include <cmath>

#include "kernels/cuda/attention_bf16_backward.h"
#include "kernels/cuda/attention_bf16_operands.cuh"
#include "kernels/cuda/attention_bf16_split.cuh"

// The plain form: a block of 64 threads for a query or a key of a head. Of 64 that meet it thread n
// weighs number n; of the sums it has dimensions n and 64 + n.
namespace thresher::kernels::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kMostDims = static_cast<int>(kBf16AttentionMostDim) / kThreads;

struct PlainTask {
  GradOperands from;
  AttentionBackwardArgs a;
  std::int64_t sequences;
  bool sizes;  // M of the bound, not the values
};

// P and S of a pair; of sizes: P and P B scale.
struct Pair {
  float p, s;
};

// Row t of a matrix [T, heads, Dh].
THRESHER_DEVICE const std::uint16_t* RowOf(const PlainTask& task, const std::uint16_t* matrix,
                                           int heads, std::int64_t t, int head) {
  return matrix + (t * heads + head) * task.from.head_dim;
}

THRESHER_DEVICE float Dot(const PlainTask& task, const std::uint16_t* a, const std::uint16_t* b,
                          bool sizes) {
  float sum = 0;
  for (int d = 0; d < task.from.head_dim; ++d) {
    const float x = Bf16Value(a[d]), y = Bf16Value(b[d]);
    sum = sizes ? simt::Fma(std::fabs(x), std::fabs(y), sum) : simt::Fma(x, y, sum);
  }
  return sum;
}

THRESHER_DEVICE Pair PairOf(const PlainTask& task, std::int64_t query, std::int64_t key, int head) {
  const GradOperands& of = task.from;
  const int kv_head = head / (of.heads / of.kv_heads);
  const std::uint16_t* k = RowOf(task, of.k, of.kv_heads, key, kv_head);
  const std::uint16_t* v = RowOf(task, of.v, of.kv_heads, key, kv_head);
  const float2 known = of.of_query[query * of.heads + head];
  const float score = Dot(task, k, RowOf(task, of.q, of.heads, query, head), false);
  const float p = hopper::Exp2(simt::Fma(score, of.c, -known.x));
  const float product = Dot(task, v, RowOf(task, of.dout, of.heads, query, head), task.sizes);
  const float inner = task.sizes ? simt::Add(product, known.y) : simt::Sub(product, known.y);
  return {p, simt::Mul(simt::Mul(p, inner), of.scale)};
}

// The sequence of a row: its rows.
struct RowsOfSequence {
  std::int64_t begin, end;
  THRESHER_DEVICE RowsOfSequence(const PlainTask& task, std::int64_t row) {
    std::int64_t s = 0;
    while (task.from.begin[s + 1] <= row) ++s;
    begin = task.from.begin[s], end = task.from.begin[s + 1];
  }
};

// sum[n] += bf16(weight) x, dimensions of this thread, for `count` of what the block has weighed;
// row(i): the operand of number i.
template <class Row>
THRESHER_DEVICE void Sum(const PlainTask& task, int count, const float* weights, const Row& row,
                         float (&sum)[kMostDims]) {
  for (int n = 0; n < kMostDims; ++n) {
    const int d = n * kThreads + static_cast<int>(threadIdx.x);
    if (d >= task.from.head_dim) continue;
    for (int i = 0; i < count; ++i) {
      const float x = Bf16Value(row(i)[d]);
      sum[n] = task.sizes ? simt::Fma(weights[i], std::fabs(x), sum[n])
                          : simt::Fma(Bf16Value(Bf16Bits(weights[i])), x, sum[n]);
    }
  }
}

THRESHER_DEVICE void Store(const PlainTask& task, const float (&sum)[kMostDims], float* to) {
  for (int n = 0; n < kMostDims; ++n) {
    const int d = n * kThreads + static_cast<int>(threadIdx.x);
    if (d < task.from.head_dim) to[d] = task.sizes ? sum[n] * (1 + 0x1p-8f) : sum[n];
  }
}

// Block: a query and head.
__global__ void __launch_bounds__(kThreads) PlainQueries(PlainTask task) {
  const GradOperands& of = task.from;
  const std::int64_t query = blockIdx.x / of.heads;
  const int head = static_cast<int>(blockIdx.x % of.heads), thread = static_cast<int>(threadIdx.x);
  const int kv_head = head / (of.heads / of.kv_heads);
  const RowsOfSequence rows(task, query);
  auto* weights = simt::SharedMemory<float>();
  float dq[kMostDims] = {};
  for (std::int64_t first = rows.begin; first <= query; first += kThreads) {
    const int count = query - first + 1 < kThreads ? static_cast<int>(query - first + 1) : kThreads;
    if (thread < count) weights[thread] = PairOf(task, query, first + thread, head).s;
    __syncthreads();
    Sum(
        task, count, weights,
        [&](int i) { return RowOf(task, of.k, of.kv_heads, first + i, kv_head); }, dq);
    __syncthreads();
  }
  Store(task, dq, task.a.dq + query * task.a.lddq + head * of.head_dim);
}

// Block: a key and KV head.
__global__ void __launch_bounds__(kThreads) PlainKeys(PlainTask task) {
  const GradOperands& of = task.from;
  const std::int64_t key = blockIdx.x / of.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.x % of.kv_heads);
  const int group = of.heads / of.kv_heads, thread = static_cast<int>(threadIdx.x);
  const RowsOfSequence rows(task, key);
  auto* p = simt::SharedMemory<float>();
  float* s = p + kThreads;
  float dk[kMostDims] = {}, dv[kMostDims] = {};
  const std::int64_t begin = rows.begin + (key - rows.begin) / kThreads * kThreads;
  for (std::int64_t first = begin; first < rows.end; first += kThreads) {
    const int count = rows.end - first < kThreads ? static_cast<int>(rows.end - first) : kThreads;
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      if (thread < count) {
        const bool seen = first + thread >= key;
        const Pair pair = seen ? PairOf(task, first + thread, key, head) : Pair{0, 0};
        p[thread] = pair.p, s[thread] = pair.s;
      }
      __syncthreads();
      Sum(
          task, count, p, [&](int i) { return RowOf(task, of.dout, of.heads, first + i, head); },
          dv);
      Sum(
          task, count, s, [&](int i) { return RowOf(task, of.q, of.heads, first + i, head); }, dk);
      __syncthreads();
    }
  }
  Store(task, dk, task.a.dk + key * task.a.lddk + kv_head * of.head_dim);
  Store(task, dv, task.a.dv + key * task.a.lddv + kv_head * of.head_dim);
}

}  // namespace

cudaError_t AttentionBackwardBf16Plain(cudaStream_t stream, const AttentionBackwardArgs& args,
                                       const Sequences& sequences, void* scratch, bool magnitudes) {
  PlainTask task{{}, args, sequences.count, magnitudes};
  cudaError_t error = MakeGradOperands(stream, args, sequences, scratch, magnitudes, &task.from);
  if (error != cudaSuccess || args.t == 0 || sequences.count == 0) return error;
  error = simt::Launch(
      stream, {static_cast<unsigned>(args.t * args.heads), kThreads, kThreads * sizeof(float)},
      PlainQueries, task);
  if (error != cudaSuccess) return error;
  return simt::Launch(
      stream,
      {static_cast<unsigned>(args.t * args.kv_heads), kThreads, 2 * kThreads * sizeof(float)},
      PlainKeys, task);
}

}  // namespace thresher::kernels::cuda
