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

// Error: kOutOfRange (over kMaxBlockBytes before compression).
Result<std::string> EncodeBlock(const std::vector<StoredRecord>& records);

// One trajectory of a decompressed block.
struct BlockRecord {
  TrajectoryId id;
  Hash128 content_hash;
  std::string_view bytes;
};
// Decompresses a block into *storage, from which the records borrow. Error: kDataLoss, without the
// path.
Result<std::vector<BlockRecord>> DecodeBlock(std::string_view payload, std::string* storage);

}  // namespace thresher::trajectory_store
