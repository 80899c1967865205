#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bf16_rows.h"

// What the self-test computes on the device. Slots are zeroed, or set to ~0 where a smallest value
// is sought, by the caller.
namespace thresher::kernels::cuda {

// Seeded values of size in [2^-8, 1), the columns behind too. hard: of every 16 rows one is zeros,
// then negative zeros and denormals, large, cancelling, and small ones, one value, NaN, infinity.
cudaError_t FillForTest(cudaStream_t stream, Bf16Rows matrix, std::uint32_t seed, bool hard);

// Row i of `to` = row (first + i * step) % from.rows of `from`; the same columns and ld.
cudaError_t GatherRows(cudaStream_t stream, Bf16Rows from, std::int64_t first, std::int64_t step,
                       Bf16Rows to);

// slot[0] = the bits of the largest |y - plain| / Bf16Bound(depth, magnitude) of `count` values,
// rounded up; infinite where only one of them is a NaN, or infinities differ. slot[1] = the first
// index that has it.
cudaError_t WorstOverBound(cudaStream_t stream, std::int64_t count, const float* y,
                           const float* plain, const float* magnitude, std::int64_t depth,
                           std::uint32_t* slot);

// *slot = the smallest index of y [rows, columns] whose bits are not those of row (first + row *
// step) % pool of `expected`; NaNs are equal. *slot begins as ~0.
cudaError_t FirstDifference(cudaStream_t stream, std::int64_t rows, std::int64_t columns,
                            const float* y, const float* expected, std::int64_t first,
                            std::int64_t step, std::int64_t pool, std::uint32_t* slot);

}  // namespace thresher::kernels::cuda
