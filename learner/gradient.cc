#include "learner/gradient.h"

#include <algorithm>
#include <cmath>
#include <string>

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

GradientTree::GradientTree(std::size_t leaves, BufferPool& pool)
    : leaves_(leaves),
      pool_(pool),
      node_(2 * leaves),
      filled_(2 * leaves, false),
      added_(leaves, false) {
  THRESHER_CHECK(leaves > 0 && (leaves & (leaves - 1)) == 0,
                 "leaves must be a power of two, found " + std::to_string(leaves));
}

void GradientTree::Add(std::size_t leaf, std::vector<float> gradient) {
  THRESHER_CHECK(leaf < leaves_, "leaf out of range");
  std::size_t node = leaves_ + leaf;
  std::unique_lock lock(mutex_);
  THRESHER_CHECK(!added_[leaf], "leaf " + std::to_string(leaf) + " added twice");
  added_[leaf] = true;
  while (true) {
    std::size_t sibling = node ^ 1;
    if (node == 1 || !filled_[sibling]) {
      node_[node] = std::move(gradient);
      filled_[node] = true;
      return;
    }
    std::vector<float> other = std::move(node_[sibling]);
    filled_[sibling] = false;
    lock.unlock();
    // a + b and b + a have the same bits, so left and right need not be told apart.
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += other[i];
    pool_.Give(std::move(other));
    lock.lock();
    node /= 2;
  }
}

std::vector<float> GradientTree::TakeRoot() {
  std::lock_guard lock(mutex_);
  THRESHER_CHECK(filled_[1], "the gradient tree is not complete");
  filled_[1] = false;
  return std::move(node_[1]);
}

double NormOfBlocks(std::vector<double> sums) {
  for (std::size_t width = 1; width < sums.size(); width *= 2) {
    for (std::size_t i = 0; i + width < sums.size(); i += 2 * width) sums[i] += sums[i + width];
  }
  return sums.empty() ? 0.0 : std::sqrt(sums[0]);
}

double BlockedNorm(std::span<const float> gradient, WorkerPool* pool) {
  std::vector<double> sums((gradient.size() + kNormBlock - 1) / kNormBlock);
  const auto block = [&](int, std::int64_t index) {
    const std::size_t begin = static_cast<std::size_t>(index) * kNormBlock;
    const std::size_t count = std::min(gradient.size() - begin, kNormBlock);
    sums[static_cast<std::size_t>(index)] =
        kernels::SquareSum(static_cast<std::int64_t>(count), gradient.data() + begin);
  };
  const auto blocks = static_cast<std::int64_t>(sums.size());
  if (pool != nullptr) {
    pool->Run(blocks, block);
  } else {
    for (std::int64_t index = 0; index < blocks; ++index) block(0, index);
  }
  return NormOfBlocks(std::move(sums));
}

}  // namespace thresher::learner
