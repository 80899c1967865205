#pragma once

#include "kernels/cuda/simt.h"

// Prefix maxima over the threads of a block: the maxima that an online softmax goes through, all at
// once, so that of a fold only the short chain of sums is serial.
namespace thresher::kernels::cuda {

// What folding values in order by "a > b ? a : b" leaves. A NaN forgets what came before it.
struct RunningMax {
  float value;
  int holds_nan;
};

THRESHER_DEVICE RunningMax RunningMaxOf(float value) { return {value, value != value}; }

// `a`, then `b`. Associative, with the bits of the fold one by one.
THRESHER_DEVICE RunningMax Join(RunningMax a, RunningMax b) {
  return {b.holds_nan == 0 && a.value > b.value ? a.value : b.value, a.holds_nan | b.holds_nan};
}

// The fold over the threads up to this one. warps: a place in shared memory for each warp. All
// threads of the block call it, which are whole warps; it meets them once.
THRESHER_DEVICE RunningMax PrefixMax(RunningMax mine, RunningMax* warps) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  for (int step = 1; step < 32; step *= 2) {
    const int from = lane < step ? lane : lane - step;
    const RunningMax before = {__shfl_sync(0xffffffffu, mine.value, from),
                               __shfl_sync(0xffffffffu, mine.holds_nan, from)};
    if (lane >= step) mine = Join(before, mine);
  }
  if (lane == 31) warps[warp] = mine;
  __syncthreads();
  for (int i = warp - 1; i >= 0; --i) mine = Join(warps[i], mine);
  return mine;
}

}  // namespace thresher::kernels::cuda
