#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/dispatch.h"

// What one core of this machine can do at most, by the best loop we can write: the limits that the
// kernels' rates are fractions of, measured in the same run.
namespace thresher::bench {

// Processor time of the calling thread in seconds: what others do on the machine disturbs it least.
double ThreadSeconds();

// The least time of `work` over `rounds` rounds, in seconds.
template <typename Work>
double BestSeconds(int rounds, const Work& work) {
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const double start = ThreadSeconds();
    work();
    const double seconds = ThreadSeconds() - start;
    best = seconds < best ? seconds : best;
  }
  return best;
}

// fp32 GFLOP/s of independent fma chains in registers (a multiplication and an addition are two),
// with the vectors of `variant`.
double ArithmeticLimit(kernels::CpuVariant variant);

// GB/s of reading `bytes` of memory, several streams at a time; give more than the caches hold.
double BandwidthLimit(std::size_t bytes);

}  // namespace thresher::bench
