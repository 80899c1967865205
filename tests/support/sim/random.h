#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/clock.h"

namespace thresher::sim {

// The seeded source of every choice of a simulation (SplitMix64; Steele et al. 2014). Equal seeds
// give equal sequences on every machine. Copyable; one owner.
class Random {
 public:
  // Neighbouring seeds have nothing in common.
  explicit Random(std::uint64_t seed) : state_(Mix(seed + 0x632be59bd9b4e019u)) {}

  std::uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15u); }
  // In [0, bound), bound >= 1. Its bias is below bound / 2^64.
  std::uint64_t Below(std::uint64_t bound) { return Next() % bound; }
  // In [low, high].
  std::int64_t Between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(Below(static_cast<std::uint64_t>(high - low) + 1));
  }
  Duration Between(Duration low, Duration high) {
    return Duration(Between(low.count(), high.count()));
  }
  // In [0, 1).
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  bool Chance(double probability) { return Unit() < probability; }
  // Positive, with this mean: the time to the next of events that come at random.
  Duration Exponential(Duration mean) {
    return Duration(
        1 + static_cast<std::int64_t>(-std::log(1.0 - Unit()) * static_cast<double>(mean.count())));
  }

 private:
  static std::uint64_t Mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

}  // namespace thresher::sim
