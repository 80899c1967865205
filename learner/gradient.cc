#include "learner/gradient.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "common/base/check.h"
#include "kernels/cpu/square_sum.h"

namespace thresher::learner {

std::vector<float> BufferPool::Take() {
  {
    std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      std::vector<float> buffer = std::move(free_.back());
      free_.pop_back();
      std::fill(buffer.begin(), buffer.end(), 0.0f);
      return buffer;
    }
  }
  return std::vector<float>(floats_, 0.0f);
}

void BufferPool::Give(std::vector<float> buffer) {
  THRESHER_CHECK(buffer.size() == floats_, "a buffer of another size given to the pool");
  std::lock_guard lock(mutex_);
  free_.push_back(std::move(buffer));
}

void BufferPool::Trim() {
  std::lock_guard lock(mutex_);
  free_.clear();
}

GradientTree::GradientTree(std::size_t leaves, BufferPool& pool, std::size_t floats, OnRoot on_root)
    : leaves_(leaves),
      pool_(pool),
      floats_(floats > 0 ? floats : pool.floats()),
      on_root_(std::move(on_root)),
      nodes_(2 * leaves, Node{floats_}),
      buffers_(leaves),
      begun_(leaves, false) {
  THRESHER_CHECK(leaves > 0 && (leaves & (leaves - 1)) == 0,
                 "leaves must be a power of two, found " + std::to_string(leaves));
  THRESHER_CHECK(floats_ <= pool.floats(), "a sum of more than the buffers hold");
}

std::size_t GradientTree::FirstLeaf(std::size_t node) const {
  while (node < leaves_) node *= 2;
  return node - leaves_;
}

std::span<float> GradientTree::Begin(std::size_t leaf, std::vector<float> buffer) {
  THRESHER_CHECK(leaf < leaves_, "leaf out of range");
  std::lock_guard lock(mutex_);
  THRESHER_CHECK(!begun_[leaf], "leaf " + std::to_string(leaf) + " added twice");
  begun_[leaf] = true;
  buffers_[leaf] = std::move(buffer);
  return buffers_[leaf];
}

void GradientTree::Ready(std::size_t leaf, std::size_t from) {
  std::unique_lock lock(mutex_);
  std::size_t node = leaves_ + leaf;
  THRESHER_CHECK(leaf < leaves_ && begun_[leaf] && from <= nodes_[node].from,
                 "a leaf that is ready before it begins, or twice");
  nodes_[node].from = from;
  if (node == 1 && on_root_) {
    lock.unlock();
    on_root_(buffers_[0].data(), from);
    return;
  }
  for (node /= 2; node >= 1 && Fold(node, lock); node /= 2) {
  }
}

bool GradientTree::Fold(std::size_t node, std::unique_lock<std::mutex>& lock) {
  Node& sum = nodes_[node];
  if (sum.folding) return false;
  bool folded = false;
  while (true) {
    const std::size_t from = std::max(nodes_[2 * node].from, nodes_[2 * node + 1].from);
    const std::size_t end = sum.from;
    if (from >= end) return folded;
    const std::size_t right = FirstLeaf(2 * node + 1);
    float* into = buffers_[FirstLeaf(2 * node)].data();
    const float* other = buffers_[right].data();
    sum.folding = true;
    lock.unlock();
    for (std::size_t i = from; i < end; ++i) into[i] += other[i];
    if (node == 1 && on_root_) on_root_(into, from);
    lock.lock();
    sum.folding = false;
    sum.from = from;
    folded = true;
    if (from == 0) pool_.Give(std::exchange(buffers_[right], {}));
  }
}

void GradientTree::Add(std::size_t leaf, std::vector<float> gradient) {
  (void)Begin(leaf, std::move(gradient));
  Ready(leaf, 0);
}

std::vector<float> GradientTree::TakeRoot() {
  std::lock_guard lock(mutex_);
  THRESHER_CHECK(nodes_[1].from == 0 && !buffers_[0].empty(), "the gradient tree is not complete");
  return std::move(buffers_[0]);
}

double NormOfBlocks(std::vector<double> sums) {
  for (std::size_t width = 1; width < sums.size(); width *= 2) {
    for (std::size_t i = 0; i + width < sums.size(); i += 2 * width) sums[i] += sums[i + width];
  }
  return sums.empty() ? 0.0 : std::sqrt(sums[0]);
}

std::vector<double> SquareSumsOf(std::span<const float> gradient,
                                 std::span<const std::size_t> blocks, WorkerPool* pool) {
  std::vector<double> sums(blocks.size());
  const auto sum = [&](int, std::int64_t index) {
    const std::size_t begin = blocks[static_cast<std::size_t>(index)] * kNormBlock;
    const std::size_t count = std::min(gradient.size() - begin, kNormBlock);
    sums[static_cast<std::size_t>(index)] =
        kernels::SquareSum(static_cast<std::int64_t>(count), gradient.data() + begin);
  };
  if (pool != nullptr) {
    pool->Run(std::ssize(blocks), sum);
  } else {
    for (std::int64_t index = 0; index < std::ssize(blocks); ++index) sum(0, index);
  }
  return sums;
}

double BlockedNorm(std::span<const float> gradient, WorkerPool* pool) {
  std::vector<std::size_t> blocks((gradient.size() + kNormBlock - 1) / kNormBlock);
  std::iota(blocks.begin(), blocks.end(), std::size_t{0});
  return NormOfBlocks(SquareSumsOf(gradient, blocks, pool));
}

}  // namespace thresher::learner
