#pragma once

// Internal to common/data: bytes of blocks (trajectory_store.h tells the layout).

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/data/trajectory_store.h"

namespace thresher::trajectory_store {

inline constexpr std::size_t kMaxBlockBytes = std::size_t{256} << 20;

// A block of kind kShuffled, or kPlain. Error: kOutOfRange (over kMaxBlockBytes before
// compression).
struct EncodedBlock {
  BlockKind kind = BlockKind::kPlain;
  std::string payload;
};
Result<EncodedBlock> EncodeBlock(const std::vector<StoredRecord>& records, Compression compression);
// What such a block of kind kPlain consists of, one piece after another; what stands between the
// trajectories' bytes lies in *heads. Error as EncodeBlock.
Result<std::vector<std::string_view>> PlainPieces(const std::vector<StoredRecord>& records,
                                                  std::string* heads);

// One trajectory of a decompressed block.
struct BlockRecord {
  TrajectoryId id;
  Hash128 content_hash;
  std::string_view bytes;
};
// Decodes a log record of any kind of block. The records borrow from `payload`, or from *storage
// where it had to be unpacked. Error: kDataLoss, without the path.
Result<std::vector<BlockRecord>> DecodeBlock(std::uint32_t kind, std::string_view payload,
                                             std::string* storage);

// The 16 bytes of an id, in blocks and indexes.
void AppendId(std::string& out, const TrajectoryId& id);

}  // namespace thresher::trajectory_store
