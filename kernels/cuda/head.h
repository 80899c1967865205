#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/head.h"

// The language-model head on a device, with the bits of kernels/cpu/head.h: HeadScan over
// vocabulary blocks, then HeadFold or HeadChoose. All pointers, those inside HeadRows included, are
// device memory; the image of the head lies at a multiple of 16 bytes. Conventions: rmsnorm.h.
//
// The softmax of the blocks (HeadBlock) is where products meet the rest: a caller with another
// product computes logits itself and goes on with HeadScanLogits, HeadPick and HeadDraw.
namespace thresher::kernels::cuda {

// Where rows' plain logits are kept: row t's at data + slot[t] * ld, valid_vocab floats. slot: [T],
// or nullptr: slot t for row t; a slot below 0: that row's are not kept. data nullptr: no row's
// are.
struct HeadLogitStore {
  float* data = nullptr;
  std::int64_t ld = 0;
  const std::int32_t* slot = nullptr;
};

// blocks[t * HeadBlockCount(valid_vocab) + b] of all rows and blocks. targets: int32 [T], or
// nullptr.
cudaError_t HeadScan(cudaStream_t stream, const HeadRows& rows, const std::int32_t* targets,
                     HeadBlock* blocks, const HeadLogitStore& store);

// The same from logits that have been computed: logits[t * ld + id - v_begin] for ids [v_begin,
// v_end); v_begin is a multiple of kVocabBlock, v_end is one or valid_vocab. Of `rows` only t,
// valid_vocab and temperature are used.
cudaError_t HeadScanLogits(cudaStream_t stream, const HeadRows& rows, const std::int32_t* targets,
                           std::int64_t v_begin, std::int64_t v_end, const float* logits,
                           std::int64_t ld, HeadBlock* blocks, const HeadLogitStore& store);

// After a scan of all blocks: logprob [T] of the targets, lse [T] and entropy [T], or nullptr. A
// target outside [0, valid_vocab) gives NaN: whoever has the targets on the host checks them there.
// Of `rows` only t and valid_vocab are used.
cudaError_t HeadFold(cudaStream_t stream, const HeadRows& rows, const std::int32_t* targets,
                     const HeadBlock* blocks, float* logprob, float* lse, float* entropy);

// After a scan of all blocks: draws (kernels/cpu/head.h, HeadSample). uniform: double [T], in [0,
// 1). A row whose logits are not in the store has its block's computed once more.
cudaError_t HeadChoose(cudaStream_t stream, const HeadRows& rows, const HeadBlock* blocks,
                       const HeadLogitStore& store, const double* uniform, std::int32_t* token,
                       float* logprob);

// HeadChoose in two steps. Which block a row draws from, and what the draw within it needs.
struct HeadPick {
  double fraction;      // how far into the block's mass the draw lies
  float maximum, lse;   // of the whole row
  float block_maximum;  // of z in the block
  std::int32_t block;
};
cudaError_t HeadPicks(cudaStream_t stream, const HeadRows& rows, const HeadBlock* blocks,
                      const double* uniform, HeadPick* picks);
// block_logits: [T, kVocabBlock] at ld: row t's plain logits of the block picked for it.
cudaError_t HeadDraws(cudaStream_t stream, const HeadRows& rows, const HeadPick* picks,
                      const float* block_logits, std::int64_t ld, std::int32_t* token,
                      float* logprob);

}  // namespace thresher::kernels::cuda
