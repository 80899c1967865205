#pragma once

#include <cuda_runtime.h>

#include <type_traits>

// What a kernel's threads need of the machine. The same sources run on a device and, for tests, on
// a simulated one (tests/support/cuda_sim), whose header is found in the place of the toolkit's.
//
// A group is 16 consecutive threads, the lanes of one F16. Its threads call ShuffleXor together.
#define THRESHER_DEVICE __device__ __forceinline__
// Before a loop over an array that is to stay in registers.
#if defined(__CUDACC__)
#define THRESHER_UNROLL _Pragma("unroll")
#else
#define THRESHER_UNROLL
#endif
namespace thresher::kernels::simt {
inline constexpr int kGroup = 16;
THRESHER_DEVICE int Lane() { return static_cast<int>(threadIdx.x) % kGroup; }
THRESHER_DEVICE unsigned GroupMask() {
  return 0xffffu << (threadIdx.x / kGroup % 2 * kGroup);  // within the warp
}
THRESHER_DEVICE float ShuffleXor(float value, int mask) {
  return __shfl_xor_sync(GroupMask(), value, mask, kGroup);
}
// What the group's threads wrote to shared memory before is seen by all of them behind it.
THRESHER_DEVICE void SyncGroup() { __syncwarp(GroupMask()); }
// Rounded by themselves, never contracted.
THRESHER_DEVICE float Add(float a, float b) { return __fadd_rn(a, b); }
THRESHER_DEVICE float Sub(float a, float b) { return __fsub_rn(a, b); }
THRESHER_DEVICE float Mul(float a, float b) { return __fmul_rn(a, b); }
THRESHER_DEVICE float Div(float a, float b) { return __fdiv_rn(a, b); }
THRESHER_DEVICE float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
THRESHER_DEVICE float FloatOf(unsigned bits) { return __uint_as_float(bits); }
// A wide access (float4, uint2, ...); `at` is a multiple of its size.
template <class T>
THRESHER_DEVICE T LoadAs(const void* at) {
  return *static_cast<const T*>(at);
}
template <class T>
THRESHER_DEVICE void StoreAs(void* at, T value) {
  *static_cast<T*>(at) = value;
}

// The block's shared memory, as many bytes as the launch asked for; 128-byte aligned.
template <class T>
THRESHER_DEVICE T* SharedMemory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char thresher_shared[];
  return reinterpret_cast<T*>(thresher_shared);
#else
  return static_cast<T*>(::cuda_sim::SharedMemory());
#endif
}

struct Shape {
  unsigned blocks = 1, threads = 1;
  std::size_t shared_bytes = 0;
  unsigned blocks_y = 1;
};

// Puts kernel(args...) on the stream. Returns the launch's error.
template <class... P>
cudaError_t Launch(cudaStream_t stream, const Shape& shape, void (*kernel)(P...),
                   std::type_identity_t<P>... args) {
#if defined(__CUDACC__)
  constexpr std::size_t kUnasked = 48 << 10;  // what every kernel may have
  if (shape.shared_bytes > kUnasked) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<dim3(shape.blocks, shape.blocks_y), shape.threads, shape.shared_bytes, stream>>>(
      args...);
  return cudaGetLastError();
#else
  return ::cuda_sim::Enqueue(
      stream, {{shape.blocks, shape.blocks_y, 1}, {shape.threads, 1, 1}, shape.shared_bytes},
      [=] { kernel(args...); });
#endif
}
}  // namespace thresher::kernels::simt
