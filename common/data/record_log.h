#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher {

// An append-only log of byte records in numbered segment files `NNNNNN.log` of a folder. Used by
// the journal and by the trajectory store.
//
// Segment: 32-byte header (magic "THRLOG1\0", format u32, segment number u32, first sequence u64,
// XXH3-64 of the header before it). Record: length u32 (its highest bit: what stands before the
// record in its segment was not yet synced when it was made), kind u32 (caller's), sequence u64,
// previous u64 (the checksum of the record before it, 0 for the first of the log), payload, then
// checksum u64 = XXH3-64 of all of the record before it. Little-endian. Sequence numbers grow by
// one across segments, from 0. Segments are numbered from 1 and follow without a gap.
//
// Old segments may leave the folder: packed (zstd) into `archive/NNNNNN.log.zst`, where readers
// find them, or for good, from the oldest on. Then `first.bin` says where the log begins.
//
// A tail is torn when the last segment ends in bytes that are no record of the chain, and behind
// them stands no record of the chain that was made when they were on disk: what a process leaves
// that dies while it writes, and what a power cut leaves of bytes that no sync covered, some of
// them and in any order. Zeros at the end of a segment are space that was taken ahead, not a tail:
// of the last one, or of any when a power cut forgot that it was given back. Everything else that
// does not fit the chain is damage.
struct LogPosition {
  std::uint32_t segment = 0;
  std::uint64_t offset = 0;  // of the record's first byte in its segment file
  friend auto operator<=>(const LogPosition&, const LogPosition&) = default;
};

// Where a writer that dies leaves something else behind.
enum class LogPoint { kBeforeWrite, kAfterWrite, kBeforeSync, kAfterSync };
const char* LogPointName(LogPoint point);  // "before_write"

struct RecordLogOptions {
  std::size_t segment_bytes = 64u << 20;  // a new segment begins when the next record would pass it
  // Space is taken on the disk ahead of what is written, so many bytes at a time, so that a sync
  // has no size to write; 0: it is not. Where there is no room ahead, what fits is written.
  std::size_t preallocate_bytes = 0;
  std::function<void(LogPoint)> reached = {};  // called by Flush around writes and syncs, if any
};

struct LogRecord {
  LogPosition position;
  std::uint64_t sequence = 0;
  std::uint32_t kind = 0;
  std::string_view payload;  // valid during the callback
  std::uint64_t checksum = 0;
};

// The place between two records: the next one stands at `position`, has number `sequence` and
// names `previous`. Default: the beginning of the log.
struct LogCursor {
  LogPosition position;
  std::uint64_t sequence = 0;
  std::uint64_t previous = 0;
  static LogCursor After(const LogRecord& record);
  friend bool operator==(const LogCursor&, const LogCursor&) = default;
};

// Writer. One owner, not thread-safe. Open makes the folder when it is missing, scans the last
// segment and truncates a torn tail (reported through `repaired_bytes`). Damage before the tail is
// kDataLoss naming file, record sequence and offset; nothing is changed then. A folder has one
// writer at a time: another one, in any process, is kFailedPrecondition. Destruction drops what is
// buffered.
class RecordLogWriter {
 public:
  static Result<RecordLogWriter> Open(const std::filesystem::path& folder,
                                      const RecordLogOptions& options);
  RecordLogWriter(RecordLogWriter&&) noexcept;
  RecordLogWriter& operator=(RecordLogWriter&&) noexcept;
  ~RecordLogWriter();

  // Buffered: no I/O. Error: kOutOfRange (payload over 1 GiB).
  Result<LogPosition> Append(std::uint32_t kind, std::string_view payload) {
    return Append(kind, std::span(&payload, 1));
  }
  // The same, of a payload in pieces.
  Result<LogPosition> Append(std::uint32_t kind, std::span<const std::string_view> payload);
  // The next record begins a segment, however short this one is.
  void EndSegment();
  // Hands the buffer to the kernel; with `sync`, fdatasync as well. Errors: kResourceExhausted
  // (disk full), kUnavailable (other I/O): the buffer is kept and a later Flush tries again, also
  // with the bytes whose sync failed, but not with what a Flush without `sync` has handed over: who
  // syncs at all syncs each time. A segment is synced in any case before the next begins.
  Status Flush(bool sync);
  std::size_t buffered_bytes() const;
  std::uint64_t next_sequence() const;  // of the next record, so also the number of records
  LogCursor end() const;                // behind the last record appended
  std::uint64_t repaired_bytes() const;

 private:
  struct State;
  explicit RecordLogWriter(State* state);
  State* state_;
};

// Reads all records of a folder in order. A torn tail of the last segment ends the reading without
// error (its size goes to *torn_bytes if given); damage elsewhere is kDataLoss naming file, record
// sequence and offset. A callback's error ends the reading and is returned. A folder without
// segments holds no records; no folder is kNotFound. May run beside the writer and then sees what
// was flushed. Memory: one segment.
// Begins where the log does (LogBegin); so does ReadRecordLogFrom the default cursor.
Status ReadRecordLog(const std::filesystem::path& folder,
                     const std::function<Status(const LogRecord&)>& callback,
                     std::uint64_t* torn_bytes = nullptr);
// The same from `from` on. Error: kDataLoss also when the log ends before it.
Status ReadRecordLogFrom(const std::filesystem::path& folder, const LogCursor& from,
                         const std::function<Status(const LogRecord&)>& callback,
                         std::uint64_t* torn_bytes = nullptr);
// The records of one segment. Error: kNotFound when it is not there.
Status ReadLogSegment(const std::filesystem::path& folder, std::uint32_t segment,
                      const std::function<Status(const LogRecord&)>& callback);
// One record, by its own checksum. Errors: kNotFound (no such segment), kDataLoss.
Result<std::string> ReadRecordAt(const std::filesystem::path& folder, LogPosition position,
                                 std::uint32_t* kind = nullptr);
// The same with its numbers; `payload` borrows from *storage.
Result<LogRecord> ReadLogRecordAt(const std::filesystem::path& folder, LogPosition position,
                                  std::string* storage);

// Of the log as it lies on disk.
struct LogSegment {
  std::uint32_t number = 0;
  bool archived = false;
  std::uint64_t bytes = 0;  // of the file (ListLog alone)
};
// Ascending. Errors: kNotFound (no folder), kDataLoss (one is missing; names it).
Result<std::vector<LogSegment>> ListLog(const std::filesystem::path& folder);
// Before the first record that is kept. Error: kDataLoss.
Result<LogCursor> LogBegin(const std::filesystem::path& folder);
// Both may run beside the writer, on segments that are complete: not its last one, nor the one
// before, in which a writer that starts may look. After an error, or a death, the log is whole:
// what was begun can be done again. Errors: I/O, kDataLoss, kNotFound.
Status ArchiveSegment(const std::filesystem::path& folder, std::uint32_t segment);
// The log begins with `segment` from now on, wherever that lies.
Status DeleteSegmentsBefore(const std::filesystem::path& folder, std::uint32_t segment);

}  // namespace thresher
