#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>

#include "common/base/ids.h"

namespace thresher::broker {

// Remembers every accepted sample of the run by content hash, also after its item is closed: the
// first accepted copy wins, whatever became of its lease. About 80 bytes a sample. Plain data.
class Dedup {
 public:
  struct First {
    Hash128 content_hash;
    std::uint32_t actor = 0;
    friend bool operator==(const First&, const First&) = default;
  };
  enum class Verdict { kNew, kDuplicate, kConflict };

  // kConflict: an accepted copy exists and its content differs, which in sync mode means that one
  // of two actors computes wrongly.
  Verdict Judge(const TrajectoryId& id, const Hash128& content_hash) const;
  // Call once per id (checked).
  void Remember(const TrajectoryId& id, const Hash128& content_hash, std::uint32_t actor);
  std::optional<First> Find(const TrajectoryId& id) const;
  std::size_t size() const { return first_.size(); }

  friend bool operator==(const Dedup&, const Dedup&) = default;

 private:
  std::unordered_map<TrajectoryId, First> first_;
};

}  // namespace thresher::broker
