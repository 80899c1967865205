#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/weight_type.h"
#include "kernels/cuda/bf16_rows.h"

// Rows fetched, added and moved, and what a step of generation keeps between steps. Conventions:
// rmsnorm.h. All counts and shapes of a launch are the arguments', never read from the device.
namespace thresher::kernels::cuda {

// y [T, D] = y + base: the addition of a residual stream. Rows at ldy, ldb.
cudaError_t AddRows(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* base,
                    std::int64_t ldb, float* y, std::int64_t ldy);

// y [T, D] = x.
cudaError_t CopyRows(cudaStream_t stream, std::int64_t t, std::int64_t d, const float* x,
                     std::int64_t ldx, float* y, std::int64_t ldy);

// y [T, D] = rows ids[t] of the packed W [V, D] (gemm.h), widened: an embedding that shares a
// head's weights. An id outside [0, V) gives NaN.
cudaError_t PackedRows(cudaStream_t stream, std::int64_t t, std::int64_t d, std::int64_t v,
                       const std::int32_t* ids, PackedMatrix w, float* y);

// The same of W [V, D] in rows (bf16_rows.h).
cudaError_t Bf16RowsOf(cudaStream_t stream, std::int64_t t, const std::int32_t* ids, Bf16Rows w,
                       float* y);

// y [N, D] = rows row[n] of x [T, D] (row[n] in [0, T)).
cudaError_t SelectRows(cudaStream_t stream, std::int64_t n, std::int64_t d, const std::int32_t* row,
                       const float* x, std::int64_t ldx, float* y);

// table[pairs[2i]] = pairs[2i + 1]: entries of the page tables that have changed. No entry twice.
cudaError_t UpdateTable(cudaStream_t stream, std::int64_t count, const std::int32_t* pairs,
                        std::int32_t* table);

// Ids that end a sequence, as many as are looked at here.
inline constexpr int kStopIds = 4;

// resolved[t] = token[t], or the token that slot[t] drew last (last[slot[t]]) if it is below 0. If
// that is below 0, too, the slot's sequence has ended: the row becomes padding, with position[t] =
// -1 and resolved[t] = 0.
cudaError_t ResolveTokens(cudaStream_t stream, std::int64_t t, const std::int32_t* token,
                          const std::int32_t* slot, const std::int32_t* last,
                          std::int32_t* resolved, std::int32_t* position);

// last[slot[n]] = token[n], or -1 if that is one of stop[n] ([N, kStopIds]; below 0: none). No slot
// twice.
cudaError_t StoreTokens(cudaStream_t stream, std::int64_t n, const std::int32_t* slot,
                        const std::int32_t* token, const std::int32_t* stop, std::int32_t* last);

}  // namespace thresher::kernels::cuda
