#pragma once

// The products of the kernel sets kBf16Dot and kBf16Amx with the instructions of this variant: x is
// rounded to bf16, and what vdpbf16ps and tdpbf16ps do is written out in fma and additions, with
// denormals flushed. Definitions: gemm.h.
#include "kernels/cpu/fpenv.h"
#include "kernels/cpu/gemm_blocks.inl"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

struct FlushedForm : F32Form {
  static constexpr bool kInPlace = false;
  THRESHER_INLINE F16 Step(F16 a, F16 w, F16 acc) { return FmaFlushed(a, w, acc); }
  THRESHER_INLINE F16 Sum(F16 a, F16 b) { return AddFlushed(a, b); }
};

// vdpbf16ps: of a pair the odd value first. x comes with its pairs exchanged.
struct DotForm : FlushedForm {
  static constexpr int kSteps = 2;
  THRESHER_INLINE void Read(const unsigned char* unit, int half, F16 (&w)[kSteps]) {
    F16 pair[2];
    Bf16Form::Read(unit, half, pair);
    w[0] = pair[1];
    w[1] = pair[0];
  }
};

// tdpbf16ps: groups of 16 pairs.
struct AmxForm : FlushedForm {
  static constexpr int kSteps = 2, kGroup = 16;
  THRESHER_INLINE void Read(const unsigned char* unit, int half, F16 (&w)[kSteps]) {
    Bf16Form::Read(unit, half, w);
  }
};

// To the nearest bf16, ties to even; denormals to zero; NaN stays one.
THRESHER_INLINE F16 RoundBf16(F16 x) {
  const I16 bits = Bits(x);
  const I16 tie = AndI(ShiftRightArithmetic<16>(bits), Set1I(1));
  const F16 rounded = FromBits(AndI(AddI(bits, AddI(tie, Set1I(0x7fff))), Set1I(-65536)));
  const F16 quiet = FromBits(AndI(OrI(bits, Set1I(0x400000)), Set1I(-65536)));
  const F16 size = FromBits(AndI(bits, Set1I(0x7fffffff)));
  const F16 zero = FromBits(AndI(bits, Set1I(-2147483647 - 1)));
  return Select(Lt(size, Set1(0x1p-126f)), zero, Select(Eq(x, x), rounded, quiet));
}

// x rounded, and +0 where an odd K leaves a pair incomplete. kSteps values a unit.
template <int kSteps, bool kExchanged>
static void RoundInput(const TileInput& from, std::int64_t r0, std::int64_t rows, std::int64_t u0,
                       std::int64_t units, void* to) {
  const std::int64_t values = units * kSteps, columns = LesserOf(values, from.k - u0 * kSteps);
  const float* x = from.x + r0 * from.ldx + u0 * kSteps;
  float* copy = static_cast<float*>(to);
  for (std::int64_t r = 0; r < rows; ++r, x += from.ldx, copy += kTileLd) {
    for (std::int64_t i = 0; i < values; i += 16) {
      StoreN(copy + i, RoundBf16(LoadN(x + i, columns - i)), values - i);
    }
    if (!kExchanged) continue;
    for (std::int64_t i = 0; i < values; i += 2) {
      const float even = copy[i];
      copy[i] = copy[i + 1];
      copy[i + 1] = even;
    }
  }
}

static void WidenOddFirst(const unsigned char* panel, std::int64_t units, float* out) {
  for (std::int64_t i = 0; i < units; i += 2, panel += DotForm::kUnitBytes) {
    for (int half = 0; half < 2; ++half) {
      F16 w[2];
      DotForm::Read(panel, half, w);
      Store(out + i * kGemmPanel + half * 16, w[0]);
      Store(out + (i + 1) * kGemmPanel + half * 16, w[1]);
    }
  }
}

static void GemmBf16Dot(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                        std::int64_t ldx, const GemmWeights& w, const float* bias, float* y,
                        std::int64_t ldy) {
  if (t == 0) return;
  const ScopedFlushedFpEnv env;
  const std::int64_t pairs = (k + 1) / 2;
  if (t > kGemmRows) {
    GemmManyRows<FlushedForm>({t, n, 2 * pairs, false, kGemmKChunk, w, bias, y, ldy},
                              {x, ldx, k, RoundInput<1, true>},
                              {DotForm::kUnitBytes / 2, WidenOddFirst});
    return;
  }
  GemmFewRows<DotForm>({t, n, pairs, false, kGemmKChunk / 2, w, bias, y, ldy},
                       {x, ldx, k, RoundInput<2, true>});
}

static void GemmBf16Amx(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                        std::int64_t ldx, const GemmWeights& w, const float* bias, float* y,
                        std::int64_t ldy) {
  if (t == 0) return;
  const ScopedFlushedFpEnv env;
  const GemmCall call{t, n, (k + 1) / 2, false, kGemmKChunk / 2, w, bias, y, ldy};
  const TileInput input{x, ldx, k, RoundInput<2, false>};
  if (t > kGemmRows) {
    GemmManyRows<AmxForm>(call, input, {AmxForm::kUnitBytes, nullptr});
  } else {
    GemmFewRows<AmxForm>(call, input);
  }
}

}  // namespace thresher::kernels::THRESHER_VARIANT
