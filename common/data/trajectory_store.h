#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/ids.h"
#include "common/data/record_log.h"

namespace thresher {

// The folder `trajectories/` of a run: encoded trajectories in blocks (one record of a record log
// holds zstd-compressed [count u32, then per record: length u32 and bytes]), found through the
// index `index.bin` (id, segment, offset, number in block, content hash), which is derived and
// rebuilt from the segments when it is missing or older. The store treats records as bytes; ids and
// hashes come from the caller.
struct StoredRecord {
  TrajectoryId id;
  Hash128 content_hash;
  std::string bytes;
};

// Writer. One owner, not thread-safe. Accepting order is file order.
class TrajectoryStoreWriter {
 public:
  static Result<std::unique_ptr<TrajectoryStoreWriter>> Open(const std::filesystem::path& folder,
                                                             const RecordLogOptions& options);
  virtual ~TrajectoryStoreWriter() = default;
  // Adds one block. Buffered until Flush.
  virtual Status AppendBlock(const std::vector<StoredRecord>& records) = 0;
  virtual Status Flush(bool sync) = 0;
  // Writes index.bin (temporary name, fsync, rename).
  virtual Status WriteIndex() = 0;
};

// Reader. Loads the index; scans what the index does not cover.
class TrajectoryStoreReader {
 public:
  struct Entry {
    TrajectoryId id;
    Hash128 content_hash;     // as stored beside the record
    LogPosition position;
    std::uint32_t number = 0; // in its block
  };
  // Errors: kNotFound (no folder), kDataLoss naming file and record.
  static Result<std::unique_ptr<TrajectoryStoreReader>> Open(const std::filesystem::path& folder);
  virtual ~TrajectoryStoreReader() = default;
  // In file order; an id stored twice is listed twice.
  virtual const std::vector<Entry>& entries() const = 0;
  // Error: kNotFound naming the id.
  virtual Result<Entry> Find(const TrajectoryId& id) const = 0;
  // The encoded trajectory. Thread-safe.
  virtual Result<std::string> Read(const Entry& entry) const = 0;
  // All records in file order, each block read once.
  virtual Status ReadAll(const std::function<Status(const Entry&, std::string_view bytes)>& callback)
      const = 0;
};

}  // namespace thresher
