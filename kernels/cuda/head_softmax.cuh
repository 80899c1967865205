#pragma once

#include "kernels/cpu/head.h"
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/prefix_max.cuh"

// The softmax over the vocabulary: of one block by a group of threads, and the fold over the blocks
// of a row by a block of threads.
namespace thresher::kernels::cuda {

inline constexpr int kVocabLanes = static_cast<int>(kVocabBlock) / simt::kGroup;  // of a thread

THRESHER_DEVICE std::int64_t BlocksOf(std::int64_t valid_vocab) {  // HeadBlockCount
  return (valid_vocab + kVocabBlock - 1) / kVocabBlock;
}
THRESHER_DEVICE float TemperatureOf(float t) { return t == 0.0f ? 1.0f : t; }
THRESHER_DEVICE float LogSumExp(const HeadBlock& row) {
  return simt::Add(row.maximum, Log(row.sum));
}

// Of a block of n logits; the group's threads call it together, and all get it. target: its index
// in the block; outside [0, n): in another.
THRESHER_DEVICE HeadBlock BlockSoftmax(std::int64_t n, const float* logits, float divisor,
                                       std::int64_t target) {
  using namespace cuda_lanes;
  const F16 minus_inf = Set1(-__builtin_inff());
  F16 z[kVocabLanes], max = minus_inf;
#pragma unroll
  for (int i = 0; i < kVocabLanes; ++i) {
    const std::int64_t j = i * simt::kGroup;
    if (j >= n) break;
    z[i] = Div(LoadN(logits + j, n - j), Set1(divisor));
    max = Max(max, Select(FirstN(n - j), z[i], minus_inf));
  }
  HeadBlock block;
  block.maximum = ReduceMax(max);
  F16 sum = Zero(), weighted = Zero();
#pragma unroll
  for (int i = 0; i < kVocabLanes; ++i) {
    const std::int64_t j = i * simt::kGroup;
    if (j >= n) break;
    const F16 shifted = Sub(z[i], Set1(block.maximum));
    const F16 mass = ExpV(shifted);
    sum = Add(sum, Select(FirstN(n - j), mass, Zero()));
    weighted = Add(weighted, Select(FirstN(n - j), Mul(mass, shifted), Zero()));
  }
  block.sum = ReduceAdd(sum);
  block.weighted = ReduceAdd(weighted);
  block.target = target >= 0 && target < n ? simt::Div(logits[target], divisor) : 0.0f;
  return block;
}

// Shared memory of FoldRow in a block of kThreads.
template <int kThreads>
struct RowFold {
  RunningMax warps[kThreads / 32];
  float maximum[kThreads + 1];  // [0]: before these blocks
  // Of each block: the factor and shift of what came before, and what it adds.
  float old_scale[kThreads], old_shift[kThreads], sum[kThreads], weighted[kThreads];
  HeadBlock row;
};

// Maxima, exponentials and products of kThreads blocks at once.
template <int kThreads>
THRESHER_DEVICE void FoldTerms(const HeadBlock* blocks, std::int64_t begin, int count,
                               RowFold<kThreads>* fold) {
  const int i = static_cast<int>(threadIdx.x);
  const HeadBlock here =
      i < count ? blocks[begin + i] : HeadBlock{-__builtin_inff(), 0.0f, 0.0f, 0.0f};
  RunningMax prefix = PrefixMax(RunningMaxOf(here.maximum), fold->warps);
  if (begin > 0) prefix = Join(RunningMaxOf(fold->maximum[0]), prefix);
  fold->maximum[i + 1] = prefix.value;
  __syncthreads();
  if (i < count && begin + i == 0) {
    fold->sum[0] = here.sum;
    fold->weighted[0] = here.weighted;
  } else if (i < count) {
    const float joint = prefix.value;
    const float old_shift = simt::Sub(fold->maximum[i], joint);
    const float new_shift = simt::Sub(here.maximum, joint);
    const float new_scale = Exp(new_shift);
    fold->old_shift[i] = old_shift;
    fold->old_scale[i] = Exp(old_shift);
    fold->sum[i] = simt::Mul(here.sum, new_scale);
    fold->weighted[i] =
        simt::Mul(new_scale, simt::Add(here.weighted, simt::Mul(here.sum, new_shift)));
  }
  __syncthreads();
}

// The online softmax of a row: its blocks folded ascending. The sums are one thread's chain. All
// threads call it, and all get the row; the target's z is not part of it. kWeighted: whether the
// weighted sum is wanted.
template <int kThreads, bool kWeighted>
THRESHER_DEVICE HeadBlock FoldRow(std::int64_t count, const HeadBlock* blocks,
                                  RowFold<kThreads>* fold) {
  float sum = 0, weighted = 0;
  for (std::int64_t begin = 0; begin < count; begin += kThreads) {
    const int here = count - begin < kThreads ? static_cast<int>(count - begin) : kThreads;
    FoldTerms(blocks, begin, here, fold);
    if (threadIdx.x == 0) {
#pragma unroll 8
      for (int i = 0; i < here; ++i) {
        if (begin + i == 0) {
          sum = fold->sum[0];
          weighted = fold->weighted[0];
          continue;
        }
        const float old_scale = fold->old_scale[i];
        if constexpr (kWeighted) {
          const float moved = simt::Add(weighted, simt::Mul(sum, fold->old_shift[i]));
          weighted = simt::Add(simt::Mul(old_scale, moved), fold->weighted[i]);
        }
        sum = simt::Add(simt::Mul(sum, old_scale), fold->sum[i]);
      }
      fold->maximum[0] = fold->maximum[here];
      fold->row = {fold->maximum[0], sum, weighted, 0.0f};
    }
    __syncthreads();
  }
  return fold->row;
}

}  // namespace thresher::kernels::cuda
