#pragma once

#include <cstdint>

#include "kernels/cuda/simt.h"

// What the threads of a block (whole warps, 1024 at most) find together. All of them call these
// functions, and all get the answer.
namespace thresher::kernels::cuda {

inline constexpr int kMostWarpsOfBlock = 32;

// The smallest. shared: a place for each warp.
THRESHER_DEVICE std::int64_t BlockMin(std::int64_t value, std::int64_t* shared) {
  const auto lesser = [](std::int64_t a, std::int64_t b) { return a < b ? a : b; };
  for (int step = 16; step > 0; step /= 2) {
    value = lesser(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  __syncthreads();  // whoever used `shared` before has done so
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x / 32; ++i) value = lesser(value, shared[i]);
  return value;
}

// values[i] becomes the sum of values[0..i], added one by one, by one thread: a chain has an order.
// Between two meetings of the block.
THRESHER_DEVICE void PrefixSumInOrder(std::int64_t n, double* values) {
  constexpr int kAhead = 8;  // loads that do not wait for the chain
  if (threadIdx.x != 0) return;
  double sum = 0;
  std::int64_t i = 0;
  for (; i + kAhead <= n; i += kAhead) {
    double next[kAhead];
#pragma unroll
    for (int e = 0; e < kAhead; ++e) next[e] = values[i + e];
#pragma unroll
    for (int e = 0; e < kAhead; ++e) {
      sum += next[e];
      values[i + e] = sum;
    }
  }
  for (; i < n; ++i) {
    sum += values[i];
    values[i] = sum;
  }
}

// The draw from n masses (at least 1): the first whose cumulated mass exceeds `fraction` of all of
// it; rounding may leave none: then the last mass above 0; 0 if there is none either.
struct MassChoice {
  std::int64_t index;
  double fraction;  // how far into that mass the draw lies; 1 if none exceeded it
};

// mass(i): the i-th, as a double, the same in both calls for it. prefix: n doubles of shared
// memory.
template <class Mass>
THRESHER_DEVICE MassChoice ChooseMass(std::int64_t n, const Mass& mass, double fraction,
                                      double* prefix, std::int64_t* shared) {
  constexpr std::int64_t kNone = INT64_MAX;
  std::int64_t last = kNone;  // negated, as the smallest is looked for
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    prefix[i] = mass(i);
    if (prefix[i] > 0) last = -i;
  }
  __syncthreads();
  PrefixSumInOrder(n, prefix);
  __syncthreads();
  const double threshold = fraction * prefix[n - 1];
  std::int64_t first = kNone;
  for (std::int64_t i = threadIdx.x; i < n && first == kNone; i += blockDim.x) {
    if (prefix[i] > threshold) first = i;
  }
  first = BlockMin(first, shared);
  last = BlockMin(last, shared);
  if (first == kNone) return {last == kNone ? 0 : -last, 1.0};
  const double before = first == 0 ? 0.0 : prefix[first - 1];
  return {first, (threshold - before) / mass(first)};
}

}  // namespace thresher::kernels::cuda
