#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"

namespace thresher::learner {

// How the flat parameter vector is cut for ranks. Pure: the same on all of them.

// Elements [begin, begin + count) of it.
struct Piece {
  std::size_t begin = 0, count = 0;
  std::size_t end() const { return begin + count; }
  friend bool operator==(const Piece&, const Piece&) = default;
};

// What is reduced at a time: pieces of about so many bytes of fp32, whole blocks of the gradient's
// norm (kNormBlock) but for the last, ascending, none empty, together all of `count`.
std::vector<Piece> CutBuckets(std::size_t count, std::uint64_t bytes);

// What is a rank's own of it: of each bucket its part in the tree (comm::TreeShard), cut at blocks
// of the norm, ascending, none empty. The shards of all ranks are disjoint, together everything.
std::vector<Piece> ShardOf(LearnerRank rank, std::uint32_t ranks, std::span<const Piece> buckets);

std::size_t CountOf(std::span<const Piece> pieces);
// Copies what `pieces` are of `flat`, one after another, to `packed`; and back.
void Pack(std::span<const Piece> pieces, std::span<const float> flat, std::span<float> packed);
void Unpack(std::span<const Piece> pieces, std::span<const float> packed, std::span<float> flat);

}  // namespace thresher::learner
