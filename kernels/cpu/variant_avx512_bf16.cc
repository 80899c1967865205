// The kernel set kBf16Dot with vdpbf16ps; everything else is the AVX-512 variant's.
#define THRESHER_VARIANT avx512_bf16
#define THRESHER_VEC_AVX512
#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm_blocks.inl"

namespace thresher::kernels {
namespace avx512_bf16 {

// A unit is a pair, and so is an element of x.
struct PairForm {
  using X = std::uint32_t;
  using W = I16;
  static constexpr bool kInPlace = false;
  static constexpr int kSteps = 1, kGroup = 0;
  static constexpr std::int64_t kUnitBytes = kGemmPanel * 4;
  THRESHER_INLINE void Read(const unsigned char* unit, int half, I16 (&w)[kSteps]) {
    w[0] = LoadI(reinterpret_cast<const std::int32_t*>(unit) + half * 16);
  }
  THRESHER_INLINE F16 Step(I16 a, I16 w, F16 acc) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(w));
  }
  THRESHER_INLINE F16 Sum(F16 a, F16 b) { return Add(a, b); }
  THRESHER_INLINE I16 Broadcast(std::uint32_t x) { return Set1I(static_cast<std::int32_t>(x)); }
};

// Rows of x as pairs of bf16, rounded as RoundBf16 (gemm_bf16.inl) does.
static void RoundPairs(const TileInput& from, std::int64_t r0, std::int64_t rows, std::int64_t u0,
                       std::int64_t units, void* to) {
  const std::int64_t columns = LesserOf(2 * units, from.k - 2 * u0);
  const float* x = from.x + r0 * from.ldx + 2 * u0;
  auto* copy = static_cast<std::uint32_t*>(to);
  for (std::int64_t r = 0; r < rows; ++r, x += from.ldx, copy += kTileLd) {
    for (std::int64_t i = 0; i < 2 * units; i += 32) {
      const __m512bh pairs =
          _mm512_cvtne2ps_pbh(LoadN(x + i + 16, columns - i - 16), LoadN(x + i, columns - i));
      _mm512_mask_storeu_epi32(copy + i / 2, FirstN(units - i / 2),
                               reinterpret_cast<__m512i>(pairs));
    }
  }
}

static void Product(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                    std::int64_t ldx, const GemmWeights& w, const float* bias, float* y,
                    std::int64_t ldy) {
  if (t == 0) return;
  const ScopedFlushedFpEnv env;  // for the sums of chunks; vdpbf16ps needs none
  const GemmCall call{t, n, (k + 1) / 2, false, kGemmKChunk / 2, w, bias, y, ldy};
  const TileInput input{x, ldx, k, RoundPairs};
  if (t > kGemmRows) {
    GemmManyRows<PairForm>(call, input, {PairForm::kUnitBytes, nullptr});
  } else {
    GemmFewRows<PairForm>(call, input);
  }
}

}  // namespace avx512_bf16

const KernelTable& Avx512Bf16Table() {
  static const KernelTable table = [] {
    KernelTable t = Avx512Table();
    t.gemm_bf16_dot = avx512_bf16::Product;
    return t;
  }();
  return table;
}

}  // namespace thresher::kernels
