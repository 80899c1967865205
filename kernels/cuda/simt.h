#pragma once

// What a kernel's threads need of the machine, so that the same source runs on a device and, for
// tests, on the host, where each thread of a group is a fiber (tests/support/simt_host.h).
//
// A group is 16 consecutive threads, the lanes of one F16. Its threads call ShuffleXor together.
#if defined(__CUDACC__)
#define THRESHER_DEVICE __device__ __forceinline__
namespace thresher::kernels::simt {
inline constexpr int kGroup = 16;
THRESHER_DEVICE int Lane() { return static_cast<int>(threadIdx.x) % kGroup; }
THRESHER_DEVICE float ShuffleXor(float value, int mask) {
  const unsigned group = 0xffffu << (threadIdx.x / kGroup % 2 * kGroup);  // within the warp
  return __shfl_xor_sync(group, value, mask, kGroup);
}
// Rounded by themselves, never contracted.
THRESHER_DEVICE float Add(float a, float b) { return __fadd_rn(a, b); }
THRESHER_DEVICE float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
THRESHER_DEVICE float FloatOf(unsigned bits) { return __uint_as_float(bits); }
}  // namespace thresher::kernels::simt
#else
#define THRESHER_DEVICE inline
namespace thresher::kernels::simt {
inline constexpr int kGroup = 16;
int Lane();
float ShuffleXor(float value, int mask);
THRESHER_DEVICE float Add(float a, float b) { return a + b; }
THRESHER_DEVICE float Fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
THRESHER_DEVICE float FloatOf(unsigned bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace thresher::kernels::simt
#endif
