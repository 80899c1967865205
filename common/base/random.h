#pragma once

#include <array>
#include <cstdint>

#include "common/base/ids.h"

namespace thresher {

// What a random number is for. Values are part of replay: never renumber.
enum class RandomPurpose : std::uint8_t {
  kTask = 0,        // generation of a task instance
  kSample = 1,      // sampling of tokens
  kReference = 2,   // choices inside reference traces
  kPerturb = 3,     // perturbed traces
  kRandomPlay = 4,  // the uniformly random legal player
  kInit = 5,        // weight initialisation
  kControl = 6,     // control experiments (permuted rewards)
  kBootstrap = 7,   // resampling for intervals
  kPermute = 8,     // orders of the rows of data sets
};

// The counter-based random numbers of one trajectory: Philox4x32-10 with
//   key     = run seed (64 bits)
//   counter = position:24, purpose:8 | lane:16, stream:4, island:12 | item:44, sample:20
// The map from (seed, id, purpose, lane, position) to (key, counter) is injective, so no two
// numbers of a run share a block. Stateless and thread-safe.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Random123.
class RandomStream {
 public:
  static constexpr std::uint32_t kMaxPosition = (1u << 24) - 1;

  RandomStream(std::uint64_t run_seed, const TrajectoryId& id, RandomPurpose purpose,
               std::uint16_t lane = 0);

  // Four independent 32-bit words for `position` (at most kMaxPosition, checked).
  std::array<std::uint32_t, 4> Block(std::uint32_t position) const;
  // Uniform on the open interval (0, 1): (52 random bits + 0.5) * 2^-52, exact. Never 0 or 1.
  double Uniform(std::uint32_t position) const;

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
};

// Draws integers one after another from a RandomStream; the source of every generator of tasks.
// Not thread-safe. Uses at most 2^24 positions (checked).
class RandomSequence {
 public:
  explicit RandomSequence(const RandomStream& stream) : stream_(stream) {}
  RandomSequence(std::uint64_t run_seed, const TrajectoryId& id, RandomPurpose purpose,
                 std::uint16_t lane = 0)
      : stream_(run_seed, id, purpose, lane) {}

  std::uint32_t NextU32();
  std::uint64_t NextU64();
  // Uniform on [0, bound), bound >= 1, without bias (rejection; Lemire 2019, arXiv:1805.10941).
  std::uint64_t Below(std::uint64_t bound);
  // Uniform on [low, high].
  std::int64_t Between(std::int64_t low, std::int64_t high);
  // Uniform on (0, 1).
  double NextUniform();

 private:
  RandomStream stream_;
  std::array<std::uint32_t, 4> block_{};
  std::uint32_t position_ = 0;
  int used_ = 4;
};

}  // namespace thresher
