#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/base/check.h"

namespace thresher::broker {

// A map from numbers to values for numbers that are given out in order: neighbours come together
// and go at about the same time, so they share a block of memory, which is used again. One that
// stays holds its block. Move-only plain data.
template <typename T>
class NumberMap {
 public:
  T* Find(std::uint64_t number) {  // null: not there
    auto found = blocks_.find(number >> kBits);
    if (found == blocks_.end() || (found->second->there & BitOf(number)) == 0) return nullptr;
    return &found->second->values[PlaceOf(number)];
  }
  // Nothing may stand there (checked).
  T& Insert(std::uint64_t number, T value) {
    std::unique_ptr<Block>& block = blocks_[number >> kBits];
    if (block == nullptr) block = NewBlock();
    THRESHER_CHECK((block->there & BitOf(number)) == 0, "a number that is in use");
    block->there |= BitOf(number);
    ++size_;
    return block->values[PlaceOf(number)] = std::move(value);
  }
  bool Erase(std::uint64_t number) {  // whether it was there
    auto found = blocks_.find(number >> kBits);
    if (found == blocks_.end() || (found->second->there & BitOf(number)) == 0) return false;
    found->second->values[PlaceOf(number)] = T();
    found->second->there &= ~BitOf(number);
    --size_;
    if (found->second->there != 0) return true;
    std::unique_ptr<Block> block = std::move(found->second);
    blocks_.erase(found);
    if (spare_.size() < blocks_.size()) {
      spare_.push_back(std::move(block));
    } else if (!spare_.empty()) {
      spare_.pop_back();
    }
    return true;
  }
  std::size_t size() const { return size_; }
  // visit(number, value), in no order.
  template <typename Visit>
  void ForEach(Visit&& visit) {
    for (auto& [key, block] : blocks_) {
      for (std::uint64_t i = 0; i < kWidth; ++i) {
        if ((block->there & BitOf(i)) != 0) visit(key << kBits | i, block->values[i]);
      }
    }
  }

 private:
  static constexpr unsigned kBits = 5;
  static constexpr std::uint64_t kWidth = 1u << kBits;
  struct Block {
    std::uint32_t there = 0;  // a bit for each value
    std::array<T, kWidth> values{};
  };
  static std::size_t PlaceOf(std::uint64_t number) { return number % kWidth; }
  static std::uint32_t BitOf(std::uint64_t number) { return std::uint32_t{1} << PlaceOf(number); }

  std::unique_ptr<Block> NewBlock() {
    if (spare_.empty()) return std::make_unique<Block>();
    std::unique_ptr<Block> block = std::move(spare_.back());
    spare_.pop_back();
    return block;
  }

  std::unordered_map<std::uint64_t, std::unique_ptr<Block>> blocks_;  // by number / kWidth
  std::vector<std::unique_ptr<Block>> spare_;                         // at most as many
  std::size_t size_ = 0;
};

}  // namespace thresher::broker
