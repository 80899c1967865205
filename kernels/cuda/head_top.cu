#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/head_filter.h"
#include "kernels/cuda/head_softmax.cuh"
//
#include "kernels/cpu/float_order.inl"

// The likeliest ids. An id's key is greater the likelier it is, and the lower it is among equals,
// so the n greatest keys are looked for, one after another: each vocabulary block offers its
// greatest below the last one found, and only the block that it came from has to look again.
namespace thresher::kernels::cuda {
namespace {

using Key = std::uint64_t;
constexpr int kTopThreads = 256;

struct TopShared {
  RowFold<kTopThreads> fold;
  Key warps[kTopThreads / 32];
};

__device__ Key KeyOf(float z, std::int64_t id) {
  const std::uint32_t order = cuda_lanes::OrderOf(simt::Add(z, 0.0f));  // no -0
  return Key{order} << 32 | (0xffffffffu - static_cast<std::uint32_t>(id));
}
__device__ std::int64_t IdOf(Key key) { return 0xffffffffu - static_cast<std::uint32_t>(key); }

__device__ Key Greater(Key a, Key b) { return a > b ? a : b; }

// The greatest key below `limit` of vocabulary block b, by a group; 0: none.
__device__ Key Offer(const float* logits, std::int64_t valid_vocab, float divisor, std::int64_t b,
                     Key limit) {
  Key best = 0;
  const std::int64_t end =
      (b + 1) * kVocabBlock < valid_vocab ? (b + 1) * kVocabBlock : valid_vocab;
  for (std::int64_t id = b * kVocabBlock + simt::Lane(); id < end; id += simt::kGroup) {
    const Key key = KeyOf(simt::Div(logits[id], divisor), id);
    if (key < limit) best = Greater(best, key);
  }
  for (int step = simt::kGroup / 2; step > 0; step /= 2) {
    best = Greater(best, __shfl_xor_sync(simt::GroupMask(), best, step, simt::kGroup));
  }
  return best;
}

// The greatest of all offers, to all threads.
__device__ Key Best(std::int64_t blocks, const Key* offers, Key* warps) {
  Key best = 0;
  for (std::int64_t b = threadIdx.x; b < blocks; b += kTopThreads) best = Greater(best, offers[b]);
  for (int step = 16; step > 0; step /= 2) {
    best = Greater(best, __shfl_xor_sync(0xffffffffu, best, step));
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
  __syncthreads();
  for (int i = 0; i < kTopThreads / 32; ++i) best = Greater(best, warps[i]);
  return best;
}

__global__ void __launch_bounds__(kTopThreads)
    Top(HeadChosenRows rows, const float* temperature, std::int64_t n, std::int32_t* ids,
        float* logprobs) {
  const std::int64_t i = blockIdx.x, t = rows.row[i];
  if (t < 0) return;
  auto* shared = simt::SharedMemory<TopShared>();
  auto* offers = reinterpret_cast<Key*>(shared + 1);
  const std::int64_t blocks = BlocksOf(rows.valid_vocab);
  const std::int64_t slot = rows.store.slot == nullptr ? t : rows.store.slot[t];
  const float* logits = rows.store.data + slot * rows.store.ld;
  const float divisor = TemperatureOf(temperature[i]);
  const float lse =
      LogSumExp(FoldRow<kTopThreads, false>(blocks, rows.blocks + t * blocks, &shared->fold));
  constexpr int kGroupsOfBlock = kTopThreads / simt::kGroup;
  const int group = static_cast<int>(threadIdx.x) / simt::kGroup;
  for (std::int64_t b = group; b < blocks; b += kGroupsOfBlock) {
    const Key offer = Offer(logits, rows.valid_vocab, divisor, b, ~Key{0});
    if (simt::Lane() == 0) offers[b] = offer;
  }
  for (std::int64_t found = 0; found < n; ++found) {
    __syncthreads();
    const Key best = Best(blocks, offers, shared->warps);
    const std::int64_t id = IdOf(best), b = id / kVocabBlock;
    if (threadIdx.x == 0) {
      ids[i * n + found] = static_cast<std::int32_t>(id);
      logprobs[i * n + found] = simt::Sub(simt::Div(logits[id], divisor), lse);
    }
    __syncthreads();  // all have seen the offers
    if (group == b % kGroupsOfBlock) {
      const Key offer = Offer(logits, rows.valid_vocab, divisor, b, best);
      if (simt::Lane() == 0) offers[b] = offer;
    }
  }
}

}  // namespace

cudaError_t HeadTopLogProbs(cudaStream_t stream, const HeadChosenRows& rows,
                            const float* temperature, std::int64_t n, std::int32_t* ids,
                            float* logprobs) {
  if (n < 1 || n > rows.valid_vocab) return cudaErrorInvalidValue;
  if (rows.count == 0) return cudaSuccess;
  const std::size_t offers = static_cast<std::size_t>(HeadBlockCount(rows.valid_vocab));
  return simt::Launch(
      stream,
      {static_cast<unsigned>(rows.count), kTopThreads, sizeof(TopShared) + offers * sizeof(Key)},
      Top, rows, temperature, n, ids, logprobs);
}

}  // namespace thresher::kernels::cuda
