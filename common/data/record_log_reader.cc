#include <fcntl.h>

#include <algorithm>

#include "common/data/byte_order.h"
#include "common/data/file_handle.h"
#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/record_log_format.h"

namespace thresher {

using record_log::Damage;
using record_log::ParsedRecord;
using record_log::SegmentPath;
using record_log::SegmentScanner;

namespace {

LogRecord ToLogRecord(const ParsedRecord& record, LogPosition position) {
  return {position, record.sequence, record.kind, record.payload, record.checksum};
}

// Delivers the records of one segment from `cursor` on and moves it to the end.
// Without `chained`, the record before it is unknown.
Status ReadSegment(const std::filesystem::path& path, std::string_view bytes, bool last,
                   LogCursor& cursor, const std::function<Status(const LogRecord&)>& callback,
                   std::uint64_t* torn_bytes, bool chained = true) {
  SegmentScanner scanner(bytes, cursor.position.offset, cursor.sequence,
                         chained ? std::optional(cursor.previous) : std::nullopt);
  LogPosition position = cursor.position;
  while (auto record = scanner.Next()) {
    LogRecord delivered = ToLogRecord(*record, position);
    THRESHER_RETURN_IF_ERROR(callback(delivered));
    cursor = LogCursor::After(delivered);
    position = cursor.position;
  }
  // Zeros: space that was taken ahead, also in a complete segment when a power cut forgot that it
  // was given back. A record that is missing there is one that the next segment does not go on
  // from.
  std::uint64_t tail = scanner.TailBytes();
  if (tail == 0) return Status::Ok();
  if (!last || !scanner.TailIsTorn()) return Damage(path, scanner.Problem());
  if (torn_bytes != nullptr) *torn_bytes = tail;
  return Status::Ok();
}

}  // namespace

LogCursor LogCursor::After(const LogRecord& record) {
  LogPosition next = record.position;
  next.offset += record_log::kRecordOverheadBytes + record.payload.size();
  return {next, record.sequence + 1, record.checksum};
}

Status ReadRecordLog(const std::filesystem::path& folder,
                     const std::function<Status(const LogRecord&)>& callback,
                     std::uint64_t* torn_bytes) {
  return ReadRecordLogFrom(folder, LogCursor(), callback, torn_bytes);
}

Status ReadRecordLogFrom(const std::filesystem::path& folder, const LogCursor& from,
                         const std::function<Status(const LogRecord&)>& callback,
                         std::uint64_t* torn_bytes) {
  if (torn_bytes != nullptr) *torn_bytes = 0;
  LogCursor cursor = from;
  if (from == LogCursor()) {
    THRESHER_ASSIGN_OR_RETURN(cursor, record_log::ReadBegin(folder));
  }
  THRESHER_ASSIGN_OR_RETURN(const auto segments, record_log::ListSegments(folder));
  if (segments.empty() && from == LogCursor()) return Status::Ok();
  if (segments.empty() || cursor.position.segment > segments.back().number) {
    return Damage(SegmentPath(folder, cursor.position.segment), "the log ends before it");
  }
  if (cursor.position.segment < segments.front().number) {
    return Damage(SegmentPath(folder, cursor.position.segment), "the log begins behind it");
  }
  for (const LogSegment& segment : segments) {
    if (segment.number < cursor.position.segment) continue;
    std::filesystem::path path = segment.archived ? record_log::ArchivedPath(folder, segment.number)
                                                  : SegmentPath(folder, segment.number);
    THRESHER_ASSIGN_OR_RETURN(std::string bytes, record_log::ReadSegmentBytes(folder, segment));
    Result<std::uint64_t> first = record_log::DecodeSegmentHeader(bytes, segment.number);
    if (!first.ok()) return Damage(path, first.status().message());
    if (segment.number != cursor.position.segment) {
      cursor.position = {segment.number, record_log::kSegmentHeaderBytes};
    }
    bool at_start = cursor.position.offset == record_log::kSegmentHeaderBytes;
    if (at_start && *first != cursor.sequence) {
      return Damage(path, "begins with record " + std::to_string(*first) + ", expected " +
                              std::to_string(cursor.sequence));
    }
    if (cursor.position.offset > bytes.size()) {
      return Damage(path, "ends before offset " + std::to_string(cursor.position.offset));
    }
    const bool last = segment.number == segments.back().number;
    THRESHER_RETURN_IF_ERROR(ReadSegment(path, bytes, last, cursor, callback, torn_bytes));
  }
  return Status::Ok();
}

Status ReadLogSegment(const std::filesystem::path& folder, std::uint32_t segment,
                      const std::function<Status(const LogRecord&)>& callback) {
  THRESHER_ASSIGN_OR_RETURN(const auto segments, record_log::ListSegments(folder));
  const auto found = std::ranges::find(segments, segment, &LogSegment::number);
  const std::filesystem::path path = SegmentPath(folder, segment);
  if (found == segments.end()) return NotFound(path.string() + ": no segment");
  THRESHER_ASSIGN_OR_RETURN(const std::string bytes, record_log::ReadSegmentBytes(folder, *found));
  Result<std::uint64_t> first = record_log::DecodeSegmentHeader(bytes, segment);
  if (!first.ok()) return Damage(path, first.status().message());
  LogCursor cursor{{segment, record_log::kSegmentHeaderBytes}, *first, 0};
  return ReadSegment(path, bytes, segment == segments.back().number, cursor, callback, nullptr,
                     /*chained=*/false);
}

Result<LogRecord> ReadLogRecordAt(const std::filesystem::path& folder, LogPosition position,
                                  std::string* storage) {
  std::filesystem::path path = SegmentPath(folder, position.segment);
  auto damaged = [&](const std::string& problem) {
    return Damage(path, "record at offset " + std::to_string(position.offset) + ": " + problem);
  };
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_RDONLY));
  THRESHER_ASSIGN_OR_RETURN(std::string header,
                            file.ReadAt(position.offset, record_log::kRecordHeaderBytes));
  if (header.size() < record_log::kRecordHeaderBytes) return damaged("cut off");
  std::size_t length = record_log::PayloadBytes(header.data());
  THRESHER_ASSIGN_OR_RETURN(
      *storage, file.ReadAt(position.offset, record_log::kRecordOverheadBytes + length));
  Result<ParsedRecord> record = record_log::ParseRecord(*storage);
  if (!record.ok()) return damaged(record.status().message());
  return ToLogRecord(*record, position);
}

Result<std::string> ReadRecordAt(const std::filesystem::path& folder, LogPosition position,
                                 std::uint32_t* kind) {
  std::string storage;
  THRESHER_ASSIGN_OR_RETURN(LogRecord record, ReadLogRecordAt(folder, position, &storage));
  if (kind != nullptr) *kind = record.kind;
  return std::string(record.payload);
}

}  // namespace thresher
