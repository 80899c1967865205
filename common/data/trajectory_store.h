#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/shared_bytes.h"
#include "common/data/record_log.h"

namespace thresher {

// The folder `trajectories/` of a run: encoded trajectories in blocks of a record log, found
// through an index beside each segment (trajectory_index.h), which is derived: where it is missing,
// damaged or of another segment, that segment is read instead. The store treats records as bytes;
// ids and hashes come from the caller. Little-endian:
//
// Block: one record of a record log; its kind says what the payload is.
//   kPlain     count u32, then per trajectory: id (16 bytes), content hash (high u64, low u64),
//              length u32, bytes
//   kZstd      zstd (level 1) over that
//   kShuffled  zstd (level 1) over: count u32; per trajectory id, content hash, length u32, and
//              kMostArrays times offset u32, size u32 of an array of 4-byte numbers in its bytes,
//              ascending, the missing ones 0, 0; all bytes outside the arrays; then for each number
//              of array those of all trajectories, their first bytes before their second, and so on
// Id: stream u8, zero u8, island u16, sample u32, item u64.
enum class BlockKind : std::uint32_t { kZstd = 1, kPlain = 2, kShuffled = 3 };

inline constexpr std::size_t kMostArrays = 3;
// Where numbers of 4 bytes lie in a record; like bytes of theirs compress better side by side.
struct ArrayRange {
  std::uint32_t offset = 0;
  std::uint32_t bytes = 0;
  friend bool operator==(const ArrayRange&, const ArrayRange&) = default;
};
using ArrayRanges = std::array<ArrayRange, kMostArrays>;

struct StoredRecord {
  TrajectoryId id;
  Hash128 content_hash;
  SharedBytes bytes;
  ArrayRanges arrays{};  // ascending, apart, whole numbers; unused ones last. Only compression asks
};

enum class Compression { kNone, kZstd };

// Writer. One owner, not thread-safe. Accepting order is file order. Destruction drops what is
// buffered. A segment ends also with the block in which it has its 65,536th record, so that the
// memory of its index is bounded however short the records are.
class TrajectoryStoreWriter {
 public:
  // Makes the folder when it is missing; repairs a torn tail. Errors as in RecordLogWriter::Open.
  static Result<std::unique_ptr<TrajectoryStoreWriter>> Open(
      const std::filesystem::path& folder, const RecordLogOptions& options,
      Compression compression = Compression::kZstd);
  virtual ~TrajectoryStoreWriter() = default;
  // Adds one block, and tells where it will stand; no records, no block. Buffered until Flush.
  // Error: kOutOfRange (a block over 256 MiB before compression); nothing is added then.
  virtual Result<LogPosition> AppendBlock(const std::vector<StoredRecord>& records) = 0;
  // As RecordLogWriter::Flush.
  virtual Status Flush(bool sync) = 0;
  // Flushes with sync and writes the index of the last segment; those of complete ones are written
  // when they are.
  virtual Status WriteIndex() = 0;
  virtual LogCursor end() const = 0;                 // behind the last block, buffered ones counted
  virtual std::uint64_t repaired_bytes() const = 0;  // torn tail that Open cut off
};

// Reader. Sees what was flushed when it was opened. Memory: the indexes that were needed, mapped.
class TrajectoryStoreReader {
 public:
  struct Entry {
    TrajectoryId id;
    Hash128 content_hash;  // as stored beside the record
    LogPosition position;
    std::uint32_t number = 0;  // in its block
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  using Visit = std::function<Status(const Entry&)>;

  // Errors: kNotFound (no folder), kDataLoss naming file and record. So in all that follows, for
  // segments without an index.
  static Result<std::unique_ptr<TrajectoryStoreReader>> Open(const std::filesystem::path& folder);
  virtual ~TrajectoryStoreReader() = default;
  // Entries from `from` on, in file order; an id stored twice comes twice. An error of `visit` ends
  // it and is returned.
  virtual Status ForEach(const Visit& visit, LogPosition from = {}) const = 0;
  // All of them at once.
  Result<std::vector<Entry>> Entries() const;
  // The last one stored under the id. Error: kNotFound naming the id, and, where older segments
  // were deleted, saying so.
  virtual Result<Entry> Find(const TrajectoryId& id) const = 0;
  // The encoded trajectory. Error: kDataLoss naming file and record.
  virtual Result<std::string> Read(const Entry& entry) const = 0;
  // All records in file order, each block read once.
  virtual Status ReadAll(
      const std::function<Status(const Entry&, std::string_view bytes)>& callback) const = 0;
  // Whether older trajectories were deleted (retention).
  virtual bool deleted_some() const = 0;
};

// The encoded trajectories of these entries, in their order; each block is read once. Needs no
// index. Error: kDataLoss naming file and record.
Result<std::vector<std::string>> ReadTrajectories(
    const std::filesystem::path& folder, const std::vector<TrajectoryStoreReader::Entry>& entries);

// The first segment before `end` that holds one of `ids`; `end`: none does. Looks into one index at
// a time. Errors as Open.
Result<std::uint32_t> FirstSegmentHolding(const std::filesystem::path& folder,
                                          std::span<const TrajectoryId> ids, std::uint32_t end);

// Retention: the store begins with `segment` from now on (DeleteSegmentsBefore).
Status DeleteTrajectoriesBefore(const std::filesystem::path& folder, std::uint32_t segment);

}  // namespace thresher
