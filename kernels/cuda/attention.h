#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kv_cache.h"

// Causal grouped-query attention over a paged KV cache on a device, with the bits of
// kernels/cpu/attention.h: over kBf16 pages those of the CPU over K and V rounded to bf16.
// Conventions: rmsnorm.h. Letters: T rows, H heads, K KV heads, Dh head dimension.
//
// A launch is recorded in a CUDA graph and replayed with other positions, sequences and tables: its
// shape depends on the arguments alone.
namespace thresher::kernels::cuda {

// Two ways to divide the work, with the same bits.
enum class AttentionForm : std::uint8_t {
  kAuto,    // kSplits if the scratch memory suffices, else kRows
  kRows,    // a block takes 32 queries (adjacent rows, the heads of a group) and goes through the
            // context: what adjacent rows of a sequence share is read once for them. Prefill.
  kSplits,  // a row's splits are divided over blocks and folded by a second kernel. Decode.
};

struct AttentionScratch {
  void* data = nullptr;  // 16-byte aligned
  std::size_t bytes = 0;
};

// Bytes that kSplits needs for `rows` rows whose positions are below max_positions.
std::size_t AttentionScratchBytes(std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
                                  std::int64_t max_positions);

// out[t, h] = softmax(scale * q[t, h] . k[0..p]) v[0..p], p = position[t].
struct AttentionArgs {
  PagedRows rows;
  // Positions are below it, in every replay. kSplits gives a row that is not one of NaN; kRows
  // does not use it.
  std::int64_t max_positions = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;  // a multiple of 8, at most 256
  const float* q = nullptr;                            // [T, H, Dh]
  std::int64_t ldq = 0;
  float scale = 0;
  KvCache kv;
  float* out = nullptr;  // [T, H, Dh]; must not overlap q
  std::int64_t ldo = 0;
  float* lse = nullptr;  // [T, H] log of the sum of exp(score), or nullptr
};

// The KV of every position <= p must have been written. Row-pure. cudaErrorInvalidValue: a shape
// that is not supported, or kSplits with too little scratch memory.
cudaError_t Attention(cudaStream_t stream, const AttentionArgs& args,
                      const AttentionScratch& scratch, AttentionForm form = AttentionForm::kAuto);

}  // namespace thresher::kernels::cuda
