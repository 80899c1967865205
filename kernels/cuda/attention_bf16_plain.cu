#include <cmath>

#include "kernels/cuda/attention_bf16_forms.cuh"
#include "kernels/cuda/attention_bf16_split.cuh"

// The plain form: a block of 64 threads for a row and head. In a split thread j has position j; of
// the values, dimensions j and 64 + j.
namespace thresher::kernels::cuda {
namespace {

constexpr int kThreads = kBf16Split;
constexpr int kMostDims = static_cast<int>(kBf16AttentionMostDim) / kThreads;

// Where a block stands.
struct PlainPlace {
  std::int64_t row, head, position;
  SplitSource source;
  const float* q;

  THRESHER_DEVICE explicit PlainPlace(const AttentionArgs& a)
      : row(blockIdx.x / a.heads), head(blockIdx.x % a.heads), position(a.rows.position[row]) {
    source = SourceOf(a, row, head / (a.heads / a.kv_heads), position);
    q = a.q + row * a.ldq + head * a.head_dim;
  }
  THRESHER_DEVICE float Key(std::int64_t at, int d) const {
    return Bf16Value(
        source.k[PageAt(source, at) +
                 static_cast<std::size_t>(KvStorage<KvType::kBf16>::KeyAt(at % kKvPageSize, d))]);
  }
  THRESHER_DEVICE float Value(std::int64_t at, int d) const {
    return Bf16Value(source.v[PageAt(source, at) +
                              static_cast<std::size_t>(at % kKvPageSize * source.head_dim + d)]);
  }
  THRESHER_DEVICE float Query(int d) const { return Bf16Value(Bf16Bits(q[d])); }
};

// l of the definition.
THRESHER_DEVICE float SumOfSplit(const float* p) {
  float warps[4];
  for (int w = 0; w < 4; ++w) {
    float of[8];
    for (int i = 0; i < 8; ++i) of[i] = simt::Add(p[16 * w + i], p[16 * w + 8 + i]);
    for (int half = 4; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) of[i] = simt::Add(of[i], of[i + half]);
    }
    warps[w] = of[0];
  }
  return SumOfWarps(warps, 1);
}

__global__ void __launch_bounds__(kThreads) Plain(AttentionArgs a, float scale) {
  const PlainPlace place(a);
  if (place.position < 0) return;
  auto* scores = simt::SharedMemory<float>();  // [64], then p [64]
  float* weights = scores + kThreads;
  const int j = static_cast<int>(threadIdx.x), dims = static_cast<int>(a.head_dim);
  float best = -__builtin_inff(), sum = 0, value[kMostDims] = {};
  for (int split = 0; split * kThreads <= place.position; ++split) {
    const std::int64_t first = std::int64_t{split} * kThreads;
    const int seen = Seen(static_cast<int>(place.position), split);
    float score = 0;
    for (int d = 0; d < dims && j < seen; ++d) {
      score = simt::Fma(place.Key(first + j, d), place.Query(d), score);
    }
    scores[j] = score;
    __syncthreads();
    float largest = scores[0];
    for (int i = 1; i < seen; ++i) largest = Largest::Join(largest, scores[i]);
    const float split_best = simt::Mul(largest, scale);
    weights[j] = j < seen ? hopper::Exp2(simt::Fma(score, scale, -split_best)) : 0.0f;
    __syncthreads();
    const float joint = Largest::Join(best, split_best);
    const float2 factor = FoldFactors(best, split_best, joint);
    best = joint;
    sum = simt::Fma(sum, factor.x, simt::Mul(SumOfSplit(weights), factor.y));
    for (int n = 0; n < kMostDims && n * kThreads + j < dims; ++n) {
      float found = 0;
      for (int i = 0; i < seen; ++i) {
        found = simt::Fma(place.Value(first + i, n * kThreads + j), Bf16Value(Bf16Bits(weights[i])),
                          found);
      }
      value[n] = simt::Fma(value[n], factor.x, simt::Mul(found, factor.y));
    }
    __syncthreads();
  }
  float* out = a.out + place.row * a.ldo + place.head * a.head_dim;
  for (int n = 0; n < kMostDims && n * kThreads + j < dims; ++n) {
    out[n * kThreads + j] = Result(value[n], simt::Div(1.0f, sum));
  }
  if (a.lse != nullptr && j == 0) {
    a.lse[place.row * a.heads + place.head] = simt::Fma(best, kLn2, Log(sum));
  }
}

// Two passes over the positions, in double: the terms of the bound are those of exact arithmetic.
__global__ void __launch_bounds__(kThreads) Bounds(AttentionArgs a, float scale, float* bound) {
  const PlainPlace place(a);
  auto* scores = simt::SharedMemory<double>();  // [64]
  const int j = static_cast<int>(threadIdx.x), dims = static_cast<int>(a.head_dim);
  float* to = bound + blockIdx.x * a.head_dim;
  double best = -1e300, magnitude = 0, sum = 0, weighted[kMostDims] = {}, most[kMostDims] = {};
  for (int pass = 0; pass < 2; ++pass) {
    for (std::int64_t first = 0; first <= place.position; first += kThreads) {
      const int seen = Seen(static_cast<int>(place.position), static_cast<int>(first / kThreads));
      double score = 0, size = 0;
      for (int d = 0; d < dims && j < seen; ++d) {
        const double product = static_cast<double>(place.Key(first + j, d)) * place.Query(d);
        score += product, size += std::fabs(product);
      }
      scores[j] = pass == 0 && j < seen ? size : 0;
      __syncthreads();
      for (int i = 0; i < seen; ++i) magnitude = scores[i] > magnitude ? scores[i] : magnitude;
      __syncthreads();
      scores[j] = score * scale;
      __syncthreads();
      for (int i = 0; i < seen; ++i) {
        if (pass == 0) {
          best = scores[i] > best ? scores[i] : best;
          continue;
        }
        const double weight = std::exp2(scores[i] - best);
        sum += weight;
        for (int n = 0; n < kMostDims && n * kThreads + j < dims; ++n) {
          const double v = std::fabs(place.Value(first + i, n * kThreads + j));
          weighted[n] += weight * v;
          most[n] = v > most[n] ? v : most[n];
        }
      }
      __syncthreads();
    }
  }
  for (int n = 0; n < kMostDims && n * kThreads + j < dims; ++n) {
    const bool there = place.position >= 0;
    const double terms = there ? AttentionBf16Bound(dims, place.position + 1, magnitude * scale,
                                                    weighted[n] / sum, most[n])
                               : 0.0;
    to[n * kThreads + j] = static_cast<float>(terms * (1 + 0x1p-20));
  }
}

bool Served(const AttentionArgs& a) {
  return a.kv_heads > 0 && a.heads > 0 && a.heads % a.kv_heads == 0 &&
         ServesAttentionBf16(a.head_dim) && a.kv.type == KvType::kBf16;
}

}  // namespace

cudaError_t AttentionBf16Plain(cudaStream_t stream, const AttentionArgs& a) {
  if (!Served(a)) return cudaErrorInvalidValue;
  if (a.rows.t == 0) return cudaSuccess;
  return simt::Launch(
      stream, {static_cast<unsigned>(a.rows.t * a.heads), kThreads, 2 * kThreads * sizeof(float)},
      Plain, a, Bf16AttentionScale(a.scale));
}

cudaError_t AttentionBf16Bounds(cudaStream_t stream, const AttentionArgs& a, float* bound) {
  if (!Served(a)) return cudaErrorInvalidValue;
  if (a.rows.t == 0) return cudaSuccess;
  return simt::Launch(
      stream, {static_cast<unsigned>(a.rows.t * a.heads), kThreads, kThreads * sizeof(double)},
      Bounds, a, Bf16AttentionScale(a.scale), bound);
}

}  // namespace thresher::kernels::cuda
