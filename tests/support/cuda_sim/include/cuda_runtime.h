#pragma once

// CUDA's language for the kernels' sources, compiled for the host (README.md). A kernel has its
// shared memory from simt::SharedMemory; variables declared __shared__ are not supported.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <type_traits>

#include "tests/support/cuda_sim/block.h"
#include "tests/support/cuda_sim/hopper.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define threadIdx (::cuda_sim::This().thread)
#define blockIdx (::cuda_sim::This().block)
#define blockDim (::cuda_sim::This().threads)
#define gridDim (::cuda_sim::This().blocks)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace cuda_sim {
// Puts kernel(args...) on the stream.
cudaError_t Enqueue(cudaStream_t stream, const Grid& grid, std::function<void()> kernel);

template <class T>
T Exchanged(unsigned mask, T value, int from_lane) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = Exchange(mask, bits, from_lane);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace cuda_sim

inline void __syncthreads() { cuda_sim::Barrier(0, 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  cuda_sim::Exchange(mask, 0, cuda_sim::LaneOfWarp());
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int lane = cuda_sim::LaneOfWarp(), other = lane ^ lanes;
  return cuda_sim::Exchanged(mask, value, other / width == lane / width ? other : lane);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = cuda_sim::LaneOfWarp();
  return cuda_sim::Exchanged(mask, value, lane / width * width + from % width);
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcg(const T* at) {
  return *at;
}
inline void __threadfence() {}
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at += value;
  return before;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}
