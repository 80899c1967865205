#pragma once

#include <cstddef>
#include <functional>
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
  std::size_t floats() const { return floats_; }

 private:
  std::size_t floats_;
  std::mutex mutex_;
  std::vector<std::vector<float>> free_;
};

// Sums the gradients of 2^k leaves in the fixed binary tree ((0+1)+(2+3))+..., whatever the order
// in which they arrive. A node is folded, from its end to its beginning, as soon as both children
// have that part, so leaves added in order need at most k + 1 buffers, and with W workers at most k
// + W. Thread-safe; a leaf is one thread's.
class GradientTree {
 public:
  // Told of the root as it grows: elements [from, floats) of the sum, which begins at `sum` and
  // stays there, are final. One call at a time, `from` descends, on threads that call Ready or Add.
  using OnRoot = std::function<void(float* sum, std::size_t from)>;

  // floats: of each buffer, from its beginning, that are summed; 0: all.
  GradientTree(std::size_t leaves, BufferPool& pool, std::size_t floats = 0, OnRoot on_root = {});

  // `leaf` in [0, leaves); each exactly once (checked). The leaf's gradient is written there.
  std::span<float> Begin(std::size_t leaf, std::vector<float> buffer);
  // The leaf writes to elements [from, floats) no more; they may change at once.
  void Ready(std::size_t leaf, std::size_t from);
  // Both, of a whole gradient.
  void Add(std::size_t leaf, std::vector<float> gradient);
  // The root, once all leaves are in (checked).
  std::vector<float> TakeRoot();

 private:
  struct Node {
    std::size_t from;      // elements from here on are summed
    bool folding = false;  // by some thread, which looks again when it is done
  };

  // Adds to `node` what both children have. Whether there was something.
  bool Fold(std::size_t node, std::unique_lock<std::mutex>& lock);
  // Where the sum of `node` lies: in the buffer of its first leaf.
  std::size_t FirstLeaf(std::size_t node) const;

  const std::size_t leaves_;
  BufferPool& pool_;
  const std::size_t floats_;
  const OnRoot on_root_;
  std::mutex mutex_;
  std::vector<Node> nodes_;  // heap order: node i has children 2i and 2i + 1; 1 is the root
  std::vector<std::vector<float>> buffers_;  // by leaf
  std::vector<bool> begun_;                  // by leaf, also once folded
};

// Euclidean norm over blocks of kNormBlock elements of the flat order (double within a block, in
// order: kernels/cpu/square_sum.h) and a fixed binary tree over the blocks: the same on any number
// of ranks and threads. `pool`: borrowed; null: the calling thread does it all.
double BlockedNorm(std::span<const float> gradient, WorkerPool* pool = nullptr);
// Its halves: the sums of squares of blocks `blocks` (any), and the norm from those of all.
std::vector<double> SquareSumsOf(std::span<const float> gradient,
                                 std::span<const std::size_t> blocks, WorkerPool* pool);
double NormOfBlocks(std::vector<double> sums);

}  // namespace thresher::learner
