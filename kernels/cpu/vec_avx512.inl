#pragma once

// The 16-lane vector as one zmm register. See vec.h for the contract.
#define THRESHER_INLINE static inline __attribute__((always_inline))
#define THRESHER_FUNCTION static

namespace thresher::kernels::THRESHER_VARIANT {

using F16 = __m512;
using I16 = __m512i;
using M16 = __mmask16;

THRESHER_INLINE M16 FirstN(std::int64_t n) {
  return n >= 16 ? M16(0xffff) : n <= 0 ? M16(0) : M16((1u << n) - 1u);
}
THRESHER_INLINE F16 Set1(float x) { return _mm512_set1_ps(x); }
THRESHER_INLINE F16 Zero() { return _mm512_setzero_ps(); }
THRESHER_INLINE F16 Load(const float* p) { return _mm512_loadu_ps(p); }
THRESHER_INLINE F16 LoadHalf(const std::uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
THRESHER_INLINE void Store(float* p, F16 a) { _mm512_storeu_ps(p, a); }
THRESHER_INLINE F16 LoadN(const float* p, std::int64_t n) {
  return _mm512_maskz_loadu_ps(FirstN(n), p);
}
THRESHER_INLINE void StoreN(float* p, F16 a, std::int64_t n) {
  _mm512_mask_storeu_ps(p, FirstN(n), a);
}
THRESHER_INLINE F16 Add(F16 a, F16 b) { return _mm512_add_ps(a, b); }
THRESHER_INLINE F16 Sub(F16 a, F16 b) { return _mm512_sub_ps(a, b); }
THRESHER_INLINE F16 Mul(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
THRESHER_INLINE F16 Div(F16 a, F16 b) { return _mm512_div_ps(a, b); }
THRESHER_INLINE F16 Fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
THRESHER_INLINE F16 Fnma(F16 a, F16 b, F16 c) { return _mm512_fnmadd_ps(a, b, c); }
THRESHER_INLINE F16 FmaFlushed(F16 a, F16 b, F16 c) { return Fma(a, b, c); }
THRESHER_INLINE F16 AddFlushed(F16 a, F16 b) { return Add(a, b); }
THRESHER_INLINE F16 Max(F16 a, F16 b) { return _mm512_max_ps(a, b); }
THRESHER_INLINE F16 Min(F16 a, F16 b) { return _mm512_min_ps(a, b); }
THRESHER_INLINE float SqrtScalar(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
THRESHER_INLINE M16 Lt(F16 a, F16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
THRESHER_INLINE M16 Eq(F16 a, F16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
THRESHER_INLINE F16 Select(M16 m, F16 a, F16 b) { return _mm512_mask_blend_ps(m, b, a); }

THRESHER_INLINE I16 Set1I(std::int32_t x) { return _mm512_set1_epi32(x); }
THRESHER_INLINE I16 Bits(F16 a) { return _mm512_castps_si512(a); }
THRESHER_INLINE F16 FromBits(I16 a) { return _mm512_castsi512_ps(a); }
THRESHER_INLINE I16 LoadI(const std::int32_t* p) { return _mm512_loadu_si512(p); }
THRESHER_INLINE I16 AndI(I16 a, I16 b) { return _mm512_and_si512(a, b); }
THRESHER_INLINE I16 OrI(I16 a, I16 b) { return _mm512_or_si512(a, b); }
THRESHER_INLINE I16 AddI(I16 a, I16 b) { return _mm512_add_epi32(a, b); }
THRESHER_INLINE I16 SubI(I16 a, I16 b) { return _mm512_sub_epi32(a, b); }
template <int N>
THRESHER_INLINE I16 ShiftLeft(I16 a) {
  return _mm512_slli_epi32(a, N);
}
template <int N>
THRESHER_INLINE I16 ShiftRightArithmetic(I16 a) {
  return _mm512_srai_epi32(a, N);
}
THRESHER_INLINE F16 ToFloat(I16 a) { return _mm512_cvtepi32_ps(a); }

THRESHER_INLINE float Lane0(F16 a) { return _mm512_cvtss_f32(a); }
THRESHER_INLINE float ReduceAdd(F16 a) {
  const __m256 r8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 r4 = _mm_add_ps(_mm256_castps256_ps128(r8), _mm256_extractf128_ps(r8, 1));
  const __m128 r2 = _mm_add_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_shuffle_ps(r2, r2, 1)));
}
THRESHER_INLINE float ReduceMax(F16 a) {
  const __m256 r8 = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 r4 = _mm_max_ps(_mm256_castps256_ps128(r8), _mm256_extractf128_ps(r8, 1));
  const __m128 r2 = _mm_max_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_max_ss(r2, _mm_shuffle_ps(r2, r2, 1)));
}

// Register blocks out of 32 zmm: 24 accumulators, so that 2 fma ports x 4 cycles stay busy.
inline constexpr int kGemmRows = 12, kGemmVecs = 2;
constexpr int GemmVecs(int rows) { return rows <= 3 ? 8 : rows <= 6 ? 4 : 2; }  // of few rows
inline constexpr int kGroupRows = 6, kGroupVecs = 2;  // two accumulators each
inline constexpr int kGradVecs = 2;
constexpr int GradRows(int) { return 12; }
inline constexpr int kQueries = 6, kMaxQueries = 8;  // attention: the fastest, the most
constexpr int AttentionVecs(int queries) { return queries <= 6 ? 4 : 2; }

}  // namespace thresher::kernels::THRESHER_VARIANT
