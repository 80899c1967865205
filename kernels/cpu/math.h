#pragma once

#include <cstdint>

// The project's own elementary functions: same bits on every CPU and in every variant, unlike
// libm's, whose results differ between versions. All are elementwise; the array forms may run in
// place (y == x), and an element's bits do not depend on n or its place in the array.
namespace thresher::kernels {

// e^x, at most 2 ulp for every finite x, also where the result is denormal. Exp(0) = 1 exactly,
// Exp(-inf) = +0 exactly, Exp(x) = +0 for x < -103.98, Exp(x) = +inf for x > 88.7229, NaN -> NaN.
float Exp(float x);
void Exp(std::int64_t n, const float* x, float* y);

// Natural logarithm, at most 2 ulp for every positive x, denormals included. Log(1) = +0 exactly,
// Log(+-0) = -inf, Log(+inf) = +inf, negative or NaN -> NaN.
float Log(float x);
void Log(std::int64_t n, const float* x, float* y);

// 1 / sqrt(x), by a correctly rounded square root and a correctly rounded division: at most 1.5
// ulp.
float Rsqrt(float x);

// 1 / x, correctly rounded.
float Reciprocal(float x);

}  // namespace thresher::kernels
