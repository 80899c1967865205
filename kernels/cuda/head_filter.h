#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/head_filter.h"
#include "kernels/cuda/head.h"

// Filtered sampling and the likeliest ids of rows of a batch, with the bits and the tie rules of
// kernels/cpu/head_filter.h. All pointers are device memory; a block of threads works on a row.
// Conventions: rmsnorm.h.
namespace thresher::kernels::cuda {

// The rows of a batch that are meant: its i-th one is row[i] of `blocks` (as HeadScan left them,
// with the same temperature) and of `store`, where its logits are. A row below 0 is padding:
// nothing is written for it.
struct HeadChosenRows {
  std::int64_t count = 0;
  const std::int32_t* row = nullptr;  // [count]
  std::int64_t valid_vocab = 0;
  const HeadBlock* blocks = nullptr;
  HeadLogitStore store;
};

// A row's filter; neutral values as in HeadFilter. Its lists begin at these places of HeadLists.
struct HeadRowFilter {
  float temperature = 1.0f;  // >= 0
  std::uint32_t top_k = 0;
  float top_p = 1.0f;               // in (0, 1]
  float min_p = 0.0f;               // in [0, 1]
  float repetition_penalty = 1.0f;  // > 0
  std::int32_t seen_count = 0, bias_count = 0;
  std::int64_t seen_begin = 0, bias_begin = 0;
  std::int64_t allowed_begin = -1;  // of the row's mask, in words; below 0: all ids are allowed
};

// The lists of all rows, one after another.
struct HeadLists {
  const std::int32_t* seen = nullptr;  // distinct ids of a row
  const std::int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  const std::uint64_t* allowed = nullptr;
};

// Bytes of scratch memory for `rows` rows.
std::size_t HeadFilterScratchBytes(std::int64_t rows, std::int64_t valid_vocab);

// A draw from each row i, by filters[i] and uniform[i] in [0, 1), into draws[i]. kept: nullptr, or
// [count, ceil(valid_vocab / 64)] words. scratch: HeadFilterScratchBytes, 16-byte aligned.
cudaError_t HeadSampleFiltered(cudaStream_t stream, const HeadChosenRows& rows,
                               const HeadRowFilter* filters, const HeadLists& lists,
                               const double* uniform, void* scratch, HeadDraw* draws,
                               std::uint64_t* kept);

// ids, logprobs: [count, n], the n (in [1, valid_vocab]) likeliest ids of each row. temperature:
// [count]. Logits are not NaN.
cudaError_t HeadTopLogProbs(cudaStream_t stream, const HeadChosenRows& rows,
                            const float* temperature, std::int64_t n, std::int32_t* ids,
                            float* logprobs);

}  // namespace thresher::kernels::cuda
