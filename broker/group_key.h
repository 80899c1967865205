#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

#include "common/base/ids.h"

namespace thresher::broker {

// The samples of one item.
struct GroupKey {
  Stream stream = Stream::kTrain;
  std::uint16_t island = 0;
  std::uint64_t item = 0;
  friend constexpr auto operator<=>(const GroupKey&, const GroupKey&) = default;
};

inline GroupKey GroupOf(const TrajectoryId& id) { return {id.stream, id.island, id.item}; }

struct GroupKeyHash {
  std::size_t operator()(const GroupKey& key) const noexcept {
    const std::uint64_t place =
        std::uint64_t{key.island} << 8 | static_cast<std::uint64_t>(key.stream);
    return (key.item ^ place << 40) * 0x9e3779b97f4a7c15u >> 8;
  }
};

}  // namespace thresher::broker
