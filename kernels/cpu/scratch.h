#pragma once

#include <cstddef>

// Thread-local working memory of the kernels: grows, is never shared, freed with its thread.
namespace thresher::kernels {

// Each use that can be live at the same time as another has a slot of its own.
enum class ScratchSlot {
  kGemmInput,   // a copy of a block of x
  kGemmPanel,   // widened chunks of a group of panels
  kGradPanel,   // weight gradient: packed columns of x
  kGradRows,    // weight gradient: packed rows of dy
  kLogits,      // head: logits of one block
  kHeadLogits,  // head: logits of rows that keep them
  kScores,      // head: filtered sampling, one row
  kMasses,
  kBlockScores,
  kHeadBlocks,  // head: the softmax of each row over each block
  kPackedKeys,  // attention backward
  kPackedValues,
  kPackedKeysT,
  kProbabilities,
  kScoreGrads,
  kCount
};

// At least `floats` floats, 64-byte aligned, contents undefined; valid until the thread's next call
// with the same slot. Ends the process when memory is exhausted.
float* Scratch(ScratchSlot slot, std::size_t floats);

}  // namespace thresher::kernels
