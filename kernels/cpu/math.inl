#pragma once

// exp and log over 16 lanes: only fma, additions, multiplications, comparisons and integer
// operations on the bits, all of them exact or correctly rounded, so every variant agrees.
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// Cody-Waite: x = k ln2 + r, |r| <= ln2/2; e^r by a polynomial; times 2^k in two factors, so that
// the only inexact one rounds into the denormals once. Coefficients: SLEEF's expf (u10).
THRESHER_INLINE F16 ExpV(F16 x) {
  x = Min(Set1(89.0f), Max(Set1(-104.0f), x));  // a NaN in x is the second operand, so it stays
  const F16 magic = Set1(12582912.0f);          // 1.5 * 2^23: rounds to an integer, in the low bits
  const F16 shifted = Fma(x, Set1(1.44269504f), magic);
  const F16 kf = Sub(shifted, magic);
  F16 r = Fnma(kf, Set1(0.693145751953125f), x);  // exact: 15 bits times 8 bits
  r = Fnma(kf, Set1(1.428606765330187e-06f), r);
  F16 u = Set1(1.98527617612853646e-4f);
  u = Fma(u, r, Set1(1.39304355252534151e-3f));
  u = Fma(u, r, Set1(8.33336077630519867e-3f));
  u = Fma(u, r, Set1(4.16664853692054749e-2f));
  u = Fma(u, r, Set1(1.66666671633720398e-1f));
  u = Fma(u, r, Set1(0.5f));
  const F16 p = Add(Fma(Mul(r, r), u, r), Set1(1.0f));
  const I16 k = SubI(Bits(shifted), Bits(magic));
  const I16 k1 = ShiftRightArithmetic<1>(k);
  const I16 k2 = SubI(k, k1);
  const I16 bias = Set1I(127);
  const F16 s1 = FromBits(ShiftLeft<23>(AddI(k1, bias)));
  const F16 s2 = FromBits(ShiftLeft<23>(AddI(k2, bias)));
  return Mul(Mul(p, s1), s2);
}

// x = 2^k m, m in [sqrt(1/2), sqrt(2)); log m by the series of fdlibm's e_logf.c.
THRESHER_INLINE F16 LogV(F16 x) {
  const M16 denormal = Lt(x, Set1(1.17549435e-38f));
  const F16 scaled = Select(denormal, Mul(x, Set1(33554432.0f)), x);  // 2^25
  const I16 ix = Bits(scaled);
  const I16 k = ShiftRightArithmetic<23>(SubI(ix, Set1I(0x3f3504f3)));
  const F16 m = FromBits(SubI(ix, ShiftLeft<23>(k)));
  const F16 kf = Sub(ToFloat(k), Select(denormal, Set1(25.0f), Zero()));
  const F16 f = Sub(m, Set1(1.0f));
  const F16 s = Div(f, Add(Set1(2.0f), f));
  const F16 z = Mul(s, s);
  const F16 w = Mul(z, z);
  const F16 t1 = Mul(w, Fma(w, Set1(0.24279078841f), Set1(0.40000972152f)));
  const F16 t2 = Mul(z, Fma(w, Set1(0.28498786688f), Set1(0.66666662693f)));
  const F16 half_f2 = Mul(Mul(Set1(0.5f), f), f);
  F16 y = Fma(s, Add(half_f2, Add(t2, t1)), Mul(kf, Set1(9.0580006145e-06f)));
  y = Add(Sub(y, half_f2), f);
  y = Fma(kf, Set1(6.9313812256e-01f), y);
  const F16 inf = Set1(__builtin_inff());
  y = Select(Lt(x, inf), y, x);  // +inf and NaN stay what they are
  y = Select(Eq(x, Zero()), Set1(-__builtin_inff()), y);
  return Select(Lt(x, Zero()), Set1(__builtin_nanf("")), y);
}

THRESHER_INLINE float ExpScalar(float x) { return Lane0(ExpV(Set1(x))); }
THRESHER_INLINE float LogScalar(float x) { return Lane0(LogV(Set1(x))); }

THRESHER_FUNCTION void ExpArray(std::int64_t n, const float* x, float* y) {
  for (std::int64_t i = 0; i < n; i += 16) StoreN(y + i, ExpV(LoadN(x + i, n - i)), n - i);
}

THRESHER_FUNCTION void LogArray(std::int64_t n, const float* x, float* y) {
  for (std::int64_t i = 0; i < n; i += 16) StoreN(y + i, LogV(LoadN(x + i, n - i)), n - i);
}

}  // namespace thresher::kernels::THRESHER_VARIANT
