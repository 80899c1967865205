#pragma once

// The 16-lane vector spread over the 16 threads of a group: each holds its own lane. With it the
// operations of kernels/cpu (their .inl files) run on a device with the bits of the other variants:
// the same additions, multiplications and fma, correctly rounded, denormals kept, and the same tree
// over lanes. Contract: kernels/cpu/vec.h.
#include "kernels/cuda/simt.h"

#define THRESHER_INLINE static __device__ __forceinline__
#define THRESHER_FUNCTION [[maybe_unused]] static __device__

namespace thresher::kernels::THRESHER_VARIANT {

struct F16 {
  float v;
};
struct I16 {
  std::int32_t v;
};
struct M16 {
  bool v;
};

THRESHER_INLINE F16 Set1(float x) { return {x}; }
THRESHER_INLINE F16 Zero() { return {0.0f}; }
THRESHER_INLINE F16 Load(const float* p) { return {p[simt::Lane()]}; }
THRESHER_INLINE void Store(float* p, F16 a) { p[simt::Lane()] = a.v; }
THRESHER_INLINE F16 LoadN(const float* p, std::int64_t n) {
  return {simt::Lane() < n ? p[simt::Lane()] : 0.0f};
}
THRESHER_INLINE void StoreN(float* p, F16 a, std::int64_t n) {
  if (simt::Lane() < n) p[simt::Lane()] = a.v;
}

// Never contracted, whatever the flags.
THRESHER_INLINE F16 Add(F16 a, F16 b) { return {__fadd_rn(a.v, b.v)}; }
THRESHER_INLINE F16 Sub(F16 a, F16 b) { return {__fsub_rn(a.v, b.v)}; }
THRESHER_INLINE F16 Mul(F16 a, F16 b) { return {__fmul_rn(a.v, b.v)}; }
THRESHER_INLINE F16 Div(F16 a, F16 b) { return {__fdiv_rn(a.v, b.v)}; }
THRESHER_INLINE F16 Fma(F16 a, F16 b, F16 c) { return {__fmaf_rn(a.v, b.v, c.v)}; }
THRESHER_INLINE F16 Fnma(F16 a, F16 b, F16 c) { return {__fmaf_rn(-a.v, b.v, c.v)}; }
THRESHER_INLINE float SqrtScalar(float x) { return __fsqrt_rn(x); }
THRESHER_INLINE I16 Bits(F16 a) { return {__float_as_int(a.v)}; }
THRESHER_INLINE F16 FromBits(I16 a) { return {__int_as_float(a.v)}; }

THRESHER_INLINE F16 Max(F16 a, F16 b) { return {a.v > b.v ? a.v : b.v}; }
THRESHER_INLINE F16 Min(F16 a, F16 b) { return {a.v < b.v ? a.v : b.v}; }
THRESHER_INLINE M16 Lt(F16 a, F16 b) { return {a.v < b.v}; }
THRESHER_INLINE M16 Eq(F16 a, F16 b) { return {a.v == b.v}; }
THRESHER_INLINE M16 FirstN(std::int64_t n) { return {simt::Lane() < n}; }
THRESHER_INLINE F16 Select(M16 m, F16 a, F16 b) { return m.v ? a : b; }
THRESHER_INLINE I16 Set1I(std::int32_t x) { return {x}; }
THRESHER_INLINE I16 AddI(I16 a, I16 b) { return {a.v + b.v}; }
THRESHER_INLINE I16 SubI(I16 a, I16 b) { return {a.v - b.v}; }
template <int kBits>
THRESHER_INLINE I16 ShiftLeft(I16 a) {
  return {static_cast<std::int32_t>(static_cast<std::uint32_t>(a.v) << kBits)};
}
template <int kBits>
THRESHER_INLINE I16 ShiftRightArithmetic(I16 a) {
  return {a.v >> kBits};
}
THRESHER_INLINE F16 ToFloat(I16 a) { return {static_cast<float>(a.v)}; }

THRESHER_INLINE float Lane0(F16 a) { return a.v; }  // of a vector of equal lanes
// Every lane ends with the value of the tree: a sum of two does not depend on their order.
THRESHER_INLINE float ReduceAdd(F16 a) {
  for (int half = 8; half > 0; half /= 2) a = Add(a, {simt::ShuffleXor(a.v, half)});
  return a.v;
}
// Likewise; the lower lane is the first operand, as in the tree (it matters to NaN and -0).
THRESHER_INLINE float ReduceMax(F16 a) {
  for (int half = 8; half > 0; half /= 2) {
    const F16 other = {simt::ShuffleXor(a.v, half)};
    a = (simt::Lane() & half) == 0 ? Max(a, other) : Max(other, a);
  }
  return a.v;
}

}  // namespace thresher::kernels::THRESHER_VARIANT
