#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/ids.h"
#include "common/base/shared_bytes.h"
#include "common/data/record_log.h"

namespace thresher {

// The folder `trajectories/` of a run: encoded trajectories in blocks, found through the index
// `index.bin`, which is derived: what it does not cover is read from the segments, all of them when
// it is missing, damaged or of another log. The store treats records as bytes; ids and hashes come
// from the caller. Little-endian:
//
// Block: one record of a record log, kind kBlockKind; its payload is zstd (level 1) over
//   count u32, then per trajectory: id (16 bytes), content hash (high u64, low u64), length u32,
//   bytes
// Id: stream u8, zero u8, island u16, sample u32, item u64.
// Index: magic "THRIDX1\0", format u32, zero u32, the cursor behind the last record covered
// (segment
//   u32, zero u32, offset u64, sequence u64 = log records covered, checksum u64 of the last one),
//   offset u64 of that last record, entries u64, then per entry: id, content hash, segment u32,
//   number in block u32, offset u64; last XXH3-64 of all before.
inline constexpr std::uint32_t kBlockKind = 1;

struct StoredRecord {
  TrajectoryId id;
  Hash128 content_hash;
  SharedBytes bytes;
};

// Writer. One owner, not thread-safe. Accepting order is file order. Destruction drops what is
// buffered.
class TrajectoryStoreWriter {
 public:
  // Makes the folder when it is missing; repairs a torn tail. Errors as in RecordLogWriter::Open.
  static Result<std::unique_ptr<TrajectoryStoreWriter>> Open(const std::filesystem::path& folder,
                                                             const RecordLogOptions& options);
  virtual ~TrajectoryStoreWriter() = default;
  // Adds one block; no records, no block. Buffered until Flush. Error: kOutOfRange (a block over
  // 256 MiB before compression); nothing is added then.
  virtual Status AppendBlock(const std::vector<StoredRecord>& records) = 0;
  // As RecordLogWriter::Flush.
  virtual Status Flush(bool sync) = 0;
  // Flushes with sync and writes index.bin (temporary name, fsync, rename).
  virtual Status WriteIndex() = 0;
  virtual std::uint64_t record_count() const = 0;    // trajectories, buffered ones counted
  virtual std::uint64_t repaired_bytes() const = 0;  // torn tail that Open cut off
};

// Reader. Loads the index; scans what the index does not cover.
class TrajectoryStoreReader {
 public:
  struct Entry {
    TrajectoryId id;
    Hash128 content_hash;  // as stored beside the record
    LogPosition position;
    std::uint32_t number = 0;  // in its block
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  // Errors: kNotFound (no folder), kDataLoss naming file and record.
  static Result<std::unique_ptr<TrajectoryStoreReader>> Open(const std::filesystem::path& folder);
  virtual ~TrajectoryStoreReader() = default;
  // In file order; an id stored twice is listed twice.
  virtual const std::vector<Entry>& entries() const = 0;
  // The first one stored under the id. Error: kNotFound naming the id.
  virtual Result<Entry> Find(const TrajectoryId& id) const = 0;
  // The encoded trajectory. Thread-safe. Error: kDataLoss naming file and record.
  virtual Result<std::string> Read(const Entry& entry) const = 0;
  // All records in file order, each block read once.
  virtual Status ReadAll(
      const std::function<Status(const Entry&, std::string_view bytes)>& callback) const = 0;
};

}  // namespace thresher
