#pragma once

#include <vector>

#include "common/model/buffer.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/head_filter.h"

namespace thresher::model {

// Rows of one pass over the weights of the head: enough to read the weights seldom, few enough that
// what is kept of each vocabulary block stays near. Logits of whole rows, which filtered sampling
// holds, exist for fewer.
inline constexpr std::int64_t kHeadPassRows = 192;
inline constexpr std::int64_t kHeadKeptRows = 32;

// Scratch of the head within a Workspace.
struct HeadScratch {
  std::vector<kernels::HeadBlock> blocks;   // [rows of a pass, blocks]
  AlignedFloats logits;                     // [kept rows, valid_vocab]
  std::vector<float*> kept;                 // [rows of a pass]: their logits, or null
  std::vector<float> temperature;           // [T]
  std::vector<kernels::HeadFilter> filter;  // [T]
};

}  // namespace thresher::model
