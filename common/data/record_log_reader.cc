#include <fcntl.h>

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
Status ReadSegment(const std::filesystem::path& path, std::string_view bytes, bool last,
                   LogCursor& cursor, const std::function<Status(const LogRecord&)>& callback,
                   std::uint64_t* torn_bytes) {
  SegmentScanner scanner(bytes, cursor.position.offset, cursor.sequence, cursor.previous);
  LogPosition position = cursor.position;
  while (auto record = scanner.Next()) {
    LogRecord delivered = ToLogRecord(*record, position);
    THRESHER_RETURN_IF_ERROR(callback(delivered));
    cursor = LogCursor::After(delivered);
    position = cursor.position;
  }
  std::uint64_t tail = scanner.TailBytes();
  bool clean = last ? tail == 0 : scanner.offset() == bytes.size();
  if (clean) return Status::Ok();
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
  if (cursor == LogCursor()) {
    cursor.position = {record_log::kFirstSegment, record_log::kSegmentHeaderBytes};
  }
  THRESHER_ASSIGN_OR_RETURN(std::vector<std::uint32_t> segments, record_log::ListSegments(folder));
  if (segments.empty() && from == LogCursor()) return Status::Ok();
  if (segments.empty() || cursor.position.segment > segments.back()) {
    return Damage(SegmentPath(folder, cursor.position.segment), "the log ends before it");
  }
  for (std::uint32_t segment = cursor.position.segment; segment <= segments.back(); ++segment) {
    std::filesystem::path path = SegmentPath(folder, segment);
    THRESHER_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
    Result<std::uint64_t> first = record_log::DecodeSegmentHeader(bytes, segment);
    if (!first.ok()) return Damage(path, first.status().message());
    if (segment != cursor.position.segment) {
      cursor.position = {segment, record_log::kSegmentHeaderBytes};
    }
    bool at_start = cursor.position.offset == record_log::kSegmentHeaderBytes;
    if (at_start && *first != cursor.sequence) {
      return Damage(path, "begins with record " + std::to_string(*first) + ", expected " +
                              std::to_string(cursor.sequence));
    }
    if (cursor.position.offset > bytes.size()) {
      return Damage(path, "ends before offset " + std::to_string(cursor.position.offset));
    }
    THRESHER_RETURN_IF_ERROR(
        ReadSegment(path, bytes, segment == segments.back(), cursor, callback, torn_bytes));
  }
  return Status::Ok();
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
