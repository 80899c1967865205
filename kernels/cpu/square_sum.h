#pragma once

#include <cstdint>

namespace thresher::kernels {

// x[0]^2 + x[1]^2 + ...: one chain of additions in double from +0, in order. The squares are exact.
double SquareSum(std::int64_t n, const float* x);

}  // namespace thresher::kernels
