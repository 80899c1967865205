#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "broker/interval_set.h"
#include "broker/sample_map.h"
#include "common/base/ids.h"

namespace thresher::broker {

// The first accepted copy of a sample wins, whatever became of its lease, for the whole run and in
// memory bounded by what is live: an accepted sample is remembered by its content hash until its
// items are forgotten; of those only their ordinals stay, as ranges. About 32 bytes a remembered
// sample. Plain data.
class Dedup {
 public:
  struct First {
    Hash128 content_hash;
    std::uint32_t actor = 0;
    friend bool operator==(const First&, const First&) = default;
  };
  enum class Verdict { kNew, kDuplicate, kConflict };

  // kConflict: an accepted copy exists and its content differs, which in sync mode means that one
  // of two actors computes wrongly. A sample of a forgotten item is a duplicate, whatever it holds:
  // it was accepted or dropped long ago.
  Verdict Judge(const TrajectoryId& id, const Hash128& content_hash) const;
  // Call once per id, and not after its item is forgotten (both checked).
  void Remember(const TrajectoryId& id, const Hash128& content_hash, std::uint32_t actor);
  // All samples of items [first_item, first_item + items) are settled for good.
  void Forget(Stream stream, std::uint16_t island, std::uint64_t first_item, std::uint64_t items);
  // Items [begin, end) of which those that were issued are settled, and the others never will be.
  void Skip(Stream stream, std::uint16_t island, std::uint64_t begin, std::uint64_t end) {
    forgotten_[{stream, island}].Insert(begin, end);
  }

  // The copy that won; nothing also when its item is forgotten.
  std::optional<First> Find(const TrajectoryId& id) const;
  bool Forgotten(const TrajectoryId& id) const;
  std::size_t remembered() const { return first_.size(); }
  std::vector<TrajectoryId> Remembered() const;
  // Items, by stream and island.
  const std::map<std::pair<Stream, std::uint16_t>, IntervalSet>& forgotten() const {
    return forgotten_;
  }
  std::uint64_t accepted() const { return accepted_; }  // ever

  friend bool operator==(const Dedup&, const Dedup&) = default;
  template <typename Io>
  void Fields(Io& io) {
    io(first_, forgotten_, accepted_);
  }

 private:
  SampleMap<First> first_;
  std::map<std::pair<Stream, std::uint16_t>, IntervalSet> forgotten_;
  std::uint64_t accepted_ = 0;
};

}  // namespace thresher::broker
