#include "learner/buckets.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/comm/communicator.h"
#include "learner/gradient.h"

namespace thresher::learner {

std::vector<Piece> CutBuckets(std::size_t count, std::uint64_t bytes) {
  const std::size_t block_bytes = kNormBlock * sizeof(float);
  const std::size_t bucket = std::max<std::size_t>(1, bytes / block_bytes) * kNormBlock;
  std::vector<Piece> out;
  for (std::size_t begin = 0; begin < count; begin += bucket) {
    out.push_back({begin, std::min(bucket, count - begin)});
  }
  return out;
}

std::vector<Piece> ShardOf(LearnerRank rank, std::uint32_t ranks, std::span<const Piece> buckets) {
  std::vector<Piece> out;
  for (const Piece& bucket : buckets) {
    const comm::TreeRange own = comm::TreeShard(rank, ranks, bucket.count, kNormBlock);
    if (own.size() > 0) out.push_back({bucket.begin + own.begin, own.size()});
  }
  return out;
}

std::size_t CountOf(std::span<const Piece> pieces) {
  std::size_t count = 0;
  for (const Piece& piece : pieces) count += piece.count;
  return count;
}

void Pack(std::span<const Piece> pieces, std::span<const float> flat, std::span<float> packed) {
  THRESHER_CHECK(packed.size() == CountOf(pieces), "a shard of another size");
  auto to = packed.begin();
  for (const Piece& piece : pieces) {
    to = std::ranges::copy(flat.subspan(piece.begin, piece.count), to).out;
  }
}

void Unpack(std::span<const Piece> pieces, std::span<const float> packed, std::span<float> flat) {
  THRESHER_CHECK(packed.size() == CountOf(pieces), "a shard of another size");
  std::size_t from = 0;
  for (const Piece& piece : pieces) {
    std::ranges::copy(packed.subspan(from, piece.count),
                      flat.begin() + static_cast<std::ptrdiff_t>(piece.begin));
    from += piece.count;
  }
}

}  // namespace thresher::learner
