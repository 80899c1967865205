#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "common/base/ids.h"

namespace thresher::broker {

// Whether a task instance is both trained on and evaluated, in bounded memory. It remembers the
// instances whose hash lies below a bound; when they become more than it may hold, the bound is
// halved. So while no more than `most` distinct instances were seen, the count is exact; then it is
// that of a fixed part of all instances (share()), chosen by hash alone: a leak of many is seen, a
// single one may not be. `thresher audit` counts them all from the files. Plain data.
class HeldoutWatch {
 public:
  static constexpr std::size_t kMost = 1u << 16;
  explicit HeldoutWatch(std::size_t most = kMost) : most_(most) {}

  void Trained(const Hash128& instance) { Note(instance, kTrained); }
  void Evaluated(const Hash128& instance) { Note(instance, kEvaluated); }
  // Distinct instances seen in both uses; never falls.
  std::uint64_t overlap() const { return overlap_; }
  // The part of all instances that is watched: 1, 1/2, 1/4, ...
  double share() const;
  std::size_t remembered() const { return uses_.size(); }

  friend bool operator==(const HeldoutWatch&, const HeldoutWatch&) = default;
  template <typename Io>
  void Fields(Io& io) {
    io(halvings_, overlap_, uses_);
  }

 private:
  static constexpr std::uint8_t kTrained = 1;
  static constexpr std::uint8_t kEvaluated = 2;
  bool Watched(const Hash128& instance) const {
    return halvings_ == 0 || instance.low >> (64 - halvings_) == 0;
  }
  void Note(const Hash128& instance, std::uint8_t use);

  std::size_t most_;
  std::uint32_t halvings_ = 0;
  std::uint64_t overlap_ = 0;
  std::map<Hash128, std::uint8_t> uses_;
};

}  // namespace thresher::broker
