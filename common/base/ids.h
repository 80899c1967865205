#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace thresher {

// A number that names one kind of thing and converts to nothing else.
template <typename Tag, typename Rep = std::uint64_t>
struct StrongId {
  Rep value = 0;
  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep v) : value(v) {}
  friend constexpr auto operator<=>(const StrongId&, const StrongId&) = default;
};

using ActorId = StrongId<struct ActorTag, std::uint32_t>;      // slot number given by the launcher
using LearnerRank = StrongId<struct LearnerTag, std::uint32_t>;
using Incarnation = StrongId<struct IncarnationTag>;           // random, one per process start
using FencingToken = StrongId<struct FencingTag>;              // grows with every lease granted
using BrokerEpoch = StrongId<struct EpochTag>;                 // grows with every broker start

// Where a sample comes from. Values are part of the record format.
enum class Stream : std::uint8_t {
  kTrain = 0,
  kSupervised = 1,
  kEval = 2,
  kBranch = 3,
  kUser = 4,
};
inline constexpr int kStreamCount = 5;
const char* StreamName(Stream stream);
Result<Stream> ParseStream(std::string_view name);

// The name of one sample; its randomness derives from it alone (common/base/random.h).
// Ranges: island < 2^12, item < 2^44, sample < 2^20.
struct TrajectoryId {
  Stream stream = Stream::kTrain;
  std::uint16_t island = 0;
  std::uint64_t item = 0;    // monotonic ordinal within its stream, never reused
  std::uint32_t sample = 0;  // 0-based index within the item's group

  static constexpr std::uint64_t kMaxIsland = (1u << 12) - 1;
  static constexpr std::uint64_t kMaxItem = (std::uint64_t{1} << 44) - 1;
  static constexpr std::uint64_t kMaxSample = (1u << 20) - 1;

  friend constexpr auto operator<=>(const TrajectoryId&, const TrajectoryId&) = default;
  bool InRange() const;
  // "train/0/1234/5" (stream/island/item/sample).
  std::string ToString() const;
  // Error: kInvalidArgument naming the part that is wrong and what is allowed.
  static Result<TrajectoryId> Parse(std::string_view text);
};

// Weights after `step` optimiser steps in `lineage`. A recovery keeps the lineage; resuming an
// older checkpoint forks a new one.
struct PolicyVersion {
  std::uint32_t lineage = 0;
  std::uint32_t step = 0;
  friend constexpr auto operator<=>(const PolicyVersion&, const PolicyVersion&) = default;
  std::string ToString() const;  // "0.140"
};

// 128-bit content hash (XXH3). Printed as 32 hexadecimal digits.
struct Hash128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend constexpr auto operator<=>(const Hash128&, const Hash128&) = default;
  bool IsZero() const { return high == 0 && low == 0; }
  std::string ToString() const;
  static Result<Hash128> Parse(std::string_view text);
};

// A random incarnation from the system's entropy source, never 0.
Incarnation NewIncarnation();

}  // namespace thresher

template <>
struct std::hash<thresher::TrajectoryId> {
  std::size_t operator()(const thresher::TrajectoryId& id) const noexcept;
};
template <typename Tag, typename Rep>
struct std::hash<thresher::StrongId<Tag, Rep>> {
  std::size_t operator()(const thresher::StrongId<Tag, Rep>& id) const noexcept {
    return std::hash<Rep>{}(id.value);
  }
};
