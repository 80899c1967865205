#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "common/sync/worker_pool.h"

namespace thresher::learner {

// Elements of one block of the gradient norm. Fixed: part of the definition of the result.
inline constexpr std::size_t kNormBlock = 65536;

// Buffers of one size, handed out zeroed and taken back. Thread-safe.
class BufferPool {
 public:
  explicit BufferPool(std::size_t floats) : floats_(floats) {}
  std::vector<float> Take();
  void Give(std::vector<float> buffer);
  // Gives the memory of what has been taken back away.
  void Trim();

 private:
  std::size_t floats_;
  std::mutex mutex_;
  std::vector<std::vector<float>> free_;
};

// Sums the gradients of 2^k leaves in the fixed binary tree ((0+1)+(2+3))+..., whatever the order in
// which they arrive. A node is folded as soon as both children are there, so leaves added in order
// need at most k + 1 buffers, and with W workers at most k + W. Thread-safe.
class GradientTree {
 public:
  GradientTree(std::size_t leaves, BufferPool& pool);
  // `leaf` in [0, leaves); each exactly once (checked). Takes the buffer.
  void Add(std::size_t leaf, std::vector<float> gradient);
  // The root, once all leaves are in (checked).
  std::vector<float> TakeRoot();

 private:
  std::size_t leaves_;
  BufferPool& pool_;
  std::mutex mutex_;
  std::vector<std::vector<float>> node_;  // heap order: node i has children 2i and 2i + 1; 1 is the root
  std::vector<bool> filled_;
  std::vector<bool> added_;               // by leaf, also once folded
};

// Euclidean norm over blocks of kNormBlock elements of the flat order (double within a block, in
// order: kernels/cpu/square_sum.h) and a fixed binary tree over the blocks: the same on any number
// of ranks and threads. `pool`: borrowed; null: the calling thread does it all.
double BlockedNorm(std::span<const float> gradient, WorkerPool* pool = nullptr);
// Its second half: from the blocks' sums of squares.
double NormOfBlocks(std::vector<double> sums);

}  // namespace thresher::learner
