#pragma once

namespace thresher::bench {

// GFLOP/s of one thread by independent chains of vdpbf16ps, and of tdpbf16ps on whole tiles. Only
// where the kernel set that is defined by the instruction is native (kernels::KernelSetNative).
double Bf16DotLimit();
double Bf16AmxLimit();

}  // namespace thresher::bench
