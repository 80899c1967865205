#pragma once

// Internal to common/data: bytes of blocks and of the index (trajectory_store.h tells the layout).

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/data/trajectory_store.h"

namespace thresher::trajectory_store {

using Entry = TrajectoryStoreReader::Entry;

inline constexpr std::size_t kMaxBlockBytes = std::size_t{256} << 20;
inline constexpr const char* kIndexName = "index.bin";

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

struct Index {
  LogCursor covered;        // entries are of the records before it
  LogPosition last_record;  // the one before `covered`, whose checksum is covered.previous
  std::vector<Entry> entries;
};
std::string EncodeIndex(const Index& index);
// Nothing when the bytes are no intact index.
std::optional<Index> DecodeIndex(std::string_view bytes);

// Loads the index when it fits the log, and completes it from the segments.
Result<Index> LoadIndex(const std::filesystem::path& folder);

}  // namespace thresher::trajectory_store
