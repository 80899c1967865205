#pragma once

#include "kernels/cpu/kernel_table.h"

namespace thresher::kernels {

using Bf16Product = decltype(KernelTable::gemm_bf16_dot);

// Whether two forms of a bf16 product give the same bits over inputs made to tell them apart: sums
// that cancel, products and sums around the smallest normal number, denormals, overflow,
// infinities, depths that fill no group, more than one chunk. Takes milliseconds.
bool SameProducts(Bf16Product a, Bf16Product b);

}  // namespace thresher::kernels
