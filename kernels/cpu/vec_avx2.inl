#pragma once

// The 16-lane vector as two ymm registers: lanes 0-7 and 8-15. See vec.h for the contract.
#define THRESHER_INLINE static inline __attribute__((always_inline))
#define THRESHER_FUNCTION static

namespace thresher::kernels::THRESHER_VARIANT {

struct F16 {
  __m256 lo, hi;
};
struct I16 {
  __m256i lo, hi;
};
using M16 = F16;  // all bits of a lane set or clear

THRESHER_INLINE __m256i FirstNOf8(std::int64_t n) {
  const std::int64_t clamped = n < 0 ? 0 : n > 8 ? 8 : n;
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(clamped)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
THRESHER_INLINE M16 FirstN(std::int64_t n) {
  return {_mm256_castsi256_ps(FirstNOf8(n)), _mm256_castsi256_ps(FirstNOf8(n - 8))};
}
THRESHER_INLINE F16 Set1(float x) {
  const __m256 a = _mm256_set1_ps(x);
  return {a, a};
}
THRESHER_INLINE F16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
THRESHER_INLINE F16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
THRESHER_INLINE F16 LoadHalf(const std::uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
THRESHER_INLINE void Store(float* p, F16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
THRESHER_INLINE F16 LoadN(const float* p, std::int64_t n) {
  return {_mm256_maskload_ps(p, FirstNOf8(n)), _mm256_maskload_ps(p + 8, FirstNOf8(n - 8))};
}
THRESHER_INLINE void StoreN(float* p, F16 a, std::int64_t n) {
  _mm256_maskstore_ps(p, FirstNOf8(n), a.lo);
  _mm256_maskstore_ps(p + 8, FirstNOf8(n - 8), a.hi);
}
THRESHER_INLINE F16 Add(F16 a, F16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
THRESHER_INLINE F16 Sub(F16 a, F16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
THRESHER_INLINE F16 Mul(F16 a, F16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
THRESHER_INLINE F16 Div(F16 a, F16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
THRESHER_INLINE F16 Fma(F16 a, F16 b, F16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
THRESHER_INLINE F16 Fnma(F16 a, F16 b, F16 c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
THRESHER_INLINE F16 FmaFlushed(F16 a, F16 b, F16 c) { return Fma(a, b, c); }
THRESHER_INLINE F16 AddFlushed(F16 a, F16 b) { return Add(a, b); }
THRESHER_INLINE F16 Max(F16 a, F16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
THRESHER_INLINE F16 Min(F16 a, F16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
THRESHER_INLINE float SqrtScalar(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
THRESHER_INLINE M16 Lt(F16 a, F16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
THRESHER_INLINE M16 Eq(F16 a, F16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
}
THRESHER_INLINE F16 Select(M16 m, F16 a, F16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}

THRESHER_INLINE I16 Set1I(std::int32_t x) {
  const __m256i a = _mm256_set1_epi32(x);
  return {a, a};
}
THRESHER_INLINE I16 Bits(F16 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
THRESHER_INLINE F16 FromBits(I16 a) {
  return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)};
}
THRESHER_INLINE I16 LoadI(const std::int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
THRESHER_INLINE I16 AndI(I16 a, I16 b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
THRESHER_INLINE I16 OrI(I16 a, I16 b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
THRESHER_INLINE I16 AddI(I16 a, I16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
THRESHER_INLINE I16 SubI(I16 a, I16 b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
template <int N>
THRESHER_INLINE I16 ShiftLeft(I16 a) {
  return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
}
template <int N>
THRESHER_INLINE I16 ShiftRightArithmetic(I16 a) {
  return {_mm256_srai_epi32(a.lo, N), _mm256_srai_epi32(a.hi, N)};
}
THRESHER_INLINE F16 ToFloat(I16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

THRESHER_INLINE float Lane0(F16 a) { return _mm256_cvtss_f32(a.lo); }
THRESHER_INLINE float ReduceAdd(F16 a) {
  const __m256 r8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 r4 = _mm_add_ps(_mm256_castps256_ps128(r8), _mm256_extractf128_ps(r8, 1));
  const __m128 r2 = _mm_add_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_shuffle_ps(r2, r2, 1)));
}
THRESHER_INLINE float ReduceMax(F16 a) {
  const __m256 r8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 r4 = _mm_max_ps(_mm256_castps256_ps128(r8), _mm256_extractf128_ps(r8, 1));
  const __m128 r2 = _mm_max_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_max_ss(r2, _mm_shuffle_ps(r2, r2, 1)));
}

// Register blocks out of 16 ymm, two per F16: 12 accumulators at most.
inline constexpr int kGemmRows = 6, kGemmVecs = 1;
constexpr int GemmVecs(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }  // of few rows
inline constexpr int kGroupRows = 3, kGroupVecs = 1;  // two accumulators each
inline constexpr int kGradVecs = 1;
constexpr int GradRows(int) { return 6; }
inline constexpr int kQueries = 6, kMaxQueries = 6;  // attention: the fastest, the most
constexpr int AttentionVecs(int queries) { return queries == 1 ? 4 : queries <= 3 ? 2 : 1; }

}  // namespace thresher::kernels::THRESHER_VARIANT
