#pragma once

// The 16-lane vector in plain C++: an array and loops. fma is the correctly rounded std::fma.
// The three vec_*.inl define the same names with the same bits; see vec.h for their contract.
#define THRESHER_INLINE static inline __attribute__((always_inline))
#define THRESHER_FUNCTION static
#define THRESHER_LANES for (int i = 0; i < 16; ++i)

namespace thresher::kernels::THRESHER_VARIANT {

struct F16 {
  float v[16];
};
struct I16 {
  std::int32_t v[16];
};
struct M16 {
  bool v[16];
};

THRESHER_INLINE F16 Set1(float x) {
  F16 r;
  THRESHER_LANES r.v[i] = x;
  return r;
}
THRESHER_INLINE F16 Zero() { return Set1(0.0f); }
THRESHER_INLINE F16 Load(const float* p) {
  F16 r;
  THRESHER_LANES r.v[i] = p[i];
  return r;
}
// binary16 moved into a binary32 with 2^-112 of its value (exact, its denormals included).
THRESHER_INLINE float HalfToFloat(std::uint16_t half) {
  std::uint32_t bits = (half & 0x7fffu) << 13;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  value *= 0x1p112f;
  __builtin_memcpy(&bits, &value, sizeof bits);
  if ((half & 0x7c00u) == 0x7c00u) bits |= 0x7f800000u;  // infinity or NaN
  bits |= (half & 0x8000u) << 16;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
THRESHER_INLINE F16 LoadHalf(const std::uint16_t* p) {
  F16 r;
  THRESHER_LANES r.v[i] = HalfToFloat(p[i]);
  return r;
}
THRESHER_INLINE void Store(float* p, F16 a) { THRESHER_LANES p[i] = a.v[i]; }
THRESHER_INLINE F16 LoadN(const float* p, std::int64_t n) {
  F16 r;
  THRESHER_LANES r.v[i] = i < n ? p[i] : 0.0f;
  return r;
}
THRESHER_INLINE void StoreN(float* p, F16 a, std::int64_t n) {
  THRESHER_LANES if (i < n) p[i] = a.v[i];
}
THRESHER_INLINE F16 Add(F16 a, F16 b) {
  THRESHER_LANES a.v[i] += b.v[i];
  return a;
}
THRESHER_INLINE F16 Sub(F16 a, F16 b) {
  THRESHER_LANES a.v[i] -= b.v[i];
  return a;
}
THRESHER_INLINE F16 Mul(F16 a, F16 b) {
  THRESHER_LANES a.v[i] *= b.v[i];
  return a;
}
THRESHER_INLINE F16 Div(F16 a, F16 b) {
  THRESHER_LANES a.v[i] /= b.v[i];
  return a;
}
THRESHER_INLINE F16 Fma(F16 a, F16 b, F16 c) {
  THRESHER_LANES c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
}
THRESHER_INLINE F16 Fnma(F16 a, F16 b, F16 c) {
  THRESHER_LANES c.v[i] = __builtin_fmaf(-a.v[i], b.v[i], c.v[i]);
  return c;
}
// Denormal to a zero of its sign.
THRESHER_INLINE float Flush(float x) {
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x;
}
// fma of two bf16 and a float as x86 gives it with DAZ and FTZ, in any environment that rounds to
// nearest: the product is exact in double; the sum is rounded to odd there, so that rounding it once
// more gives the float nearest to the exact value; what is below the normal floats after rounding to
// 24 bits with an unbounded exponent becomes zero.
THRESHER_INLINE float FmaFlushed(float a, float b, float c) {
  const double product = double(Flush(a)) * double(Flush(b)), addend = double(Flush(c));
  double sum = product + addend;
  const double added = sum - product;
  const double error = (product - (sum - added)) + (addend - added);
  std::uint64_t bits;
  __builtin_memcpy(&bits, &sum, sizeof bits);
  const bool inexact = error > 0 || error < 0;  // not of infinities: NaN there
  if (inexact && (bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : ~std::uint64_t{0};
  __builtin_memcpy(&sum, &bits, sizeof sum);
  constexpr double kTiny = 0x1p-126 * (1 - 0x1p-25);  // half way from the next below to 2^-126
  if (__builtin_fabs(sum) < kTiny) return __builtin_copysignf(0.0f, float(sum));
  return float(sum);
}
// Not inlined: it is long, and the tiles hold many.
[[maybe_unused, gnu::noinline]] static F16 FmaFlushed(F16 a, F16 b, F16 c) {
  THRESHER_LANES c.v[i] = FmaFlushed(a.v[i], b.v[i], c.v[i]);
  return c;
}
THRESHER_INLINE F16 AddFlushed(F16 a, F16 b) {
  THRESHER_LANES a.v[i] = Flush(Flush(a.v[i]) + Flush(b.v[i]));
  return a;
}
THRESHER_INLINE F16 Max(F16 a, F16 b) {
  THRESHER_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
THRESHER_INLINE F16 Min(F16 a, F16 b) {
  THRESHER_LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
THRESHER_INLINE float SqrtScalar(float x) { return __builtin_sqrtf(x); }
THRESHER_INLINE M16 Lt(F16 a, F16 b) {
  M16 r;
  THRESHER_LANES r.v[i] = a.v[i] < b.v[i];
  return r;
}
THRESHER_INLINE M16 Eq(F16 a, F16 b) {
  M16 r;
  THRESHER_LANES r.v[i] = a.v[i] == b.v[i];
  return r;
}
THRESHER_INLINE M16 FirstN(std::int64_t n) {
  M16 r;
  THRESHER_LANES r.v[i] = i < n;
  return r;
}
THRESHER_INLINE F16 Select(M16 m, F16 a, F16 b) {
  THRESHER_LANES a.v[i] = m.v[i] ? a.v[i] : b.v[i];
  return a;
}

THRESHER_INLINE I16 Set1I(std::int32_t x) {
  I16 r;
  THRESHER_LANES r.v[i] = x;
  return r;
}
THRESHER_INLINE I16 Bits(F16 a) {
  I16 r;
  __builtin_memcpy(&r, &a, sizeof r);
  return r;
}
THRESHER_INLINE F16 FromBits(I16 a) {
  F16 r;
  __builtin_memcpy(&r, &a, sizeof r);
  return r;
}
THRESHER_INLINE I16 LoadI(const std::int32_t* p) {
  I16 r;
  THRESHER_LANES r.v[i] = p[i];
  return r;
}
THRESHER_INLINE I16 AndI(I16 a, I16 b) {
  THRESHER_LANES a.v[i] &= b.v[i];
  return a;
}
THRESHER_INLINE I16 OrI(I16 a, I16 b) {
  THRESHER_LANES a.v[i] |= b.v[i];
  return a;
}
// Integer lanes wrap around; unsigned arithmetic keeps that defined.
THRESHER_INLINE I16 AddI(I16 a, I16 b) {
  THRESHER_LANES a.v[i] = std::int32_t(std::uint32_t(a.v[i]) + std::uint32_t(b.v[i]));
  return a;
}
THRESHER_INLINE I16 SubI(I16 a, I16 b) {
  THRESHER_LANES a.v[i] = std::int32_t(std::uint32_t(a.v[i]) - std::uint32_t(b.v[i]));
  return a;
}
template <int N>
THRESHER_INLINE I16 ShiftLeft(I16 a) {
  THRESHER_LANES a.v[i] = std::int32_t(std::uint32_t(a.v[i]) << N);
  return a;
}
template <int N>
THRESHER_INLINE I16 ShiftRightArithmetic(I16 a) {
  THRESHER_LANES a.v[i] >>= N;
  return a;
}
THRESHER_INLINE F16 ToFloat(I16 a) {
  F16 r;
  THRESHER_LANES r.v[i] = static_cast<float>(a.v[i]);
  return r;
}

THRESHER_INLINE float Lane0(F16 a) { return a.v[0]; }
THRESHER_INLINE float ReduceAdd(F16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  }
  return a.v[0];
}
THRESHER_INLINE float ReduceMax(F16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  }
  return a.v[0];
}

// Register blocks: no registers to speak of, so small ones.
inline constexpr int kGemmRows = 4, kGemmVecs = 2;  // main tile of Gemm
constexpr int GemmVecs(int) { return 2; }  // of few rows
inline constexpr int kGroupRows = 2, kGroupVecs = 1;
inline constexpr int kGradVecs = 2;  // main tile of the weight gradient
constexpr int GradRows(int) { return 2; }
inline constexpr int kQueries = 4, kMaxQueries = 4;  // attention
constexpr int AttentionVecs(int) { return 1; }

}  // namespace thresher::kernels::THRESHER_VARIANT
#undef THRESHER_LANES
