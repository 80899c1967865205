// Which segments a log consists of, where they lie, and how old ones leave.
#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/file_handle.h"
#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/record_log_format.h"
#include "common/data/zstd_bytes.h"

namespace thresher {

using record_log::Damage;

namespace record_log {
namespace {

constexpr std::string_view kFirstMagic("THRFST1\0", 8);
constexpr std::size_t kFirstBytes = 8 + 4 + 4 + 8 + 8 + 8;
constexpr const char* kFirstName = "first.bin";
constexpr const char* kArchiveName = "archive";
constexpr std::size_t kMaxSegmentBytes = std::size_t{4} << 30;
constexpr int kArchiveLevel = 3;
constexpr std::size_t kPieceBytes = 1 << 20;

// 12 from "000012.log" with the suffix ".log"; nothing for other names.
std::optional<std::uint32_t> SegmentNumber(const std::string& name, std::string_view suffix) {
  if (name.size() < 6 + suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  std::uint32_t number = 0;
  const char* end = name.data() + name.size() - suffix.size();
  auto [stop, error] = std::from_chars(name.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::string NameOf(std::uint32_t segment, const char* suffix) {
  char name[32];
  std::snprintf(name, sizeof name, "%06u%s", segment, suffix);
  return name;
}

// How much of an archived segment holds its first `bytes`: whole blocks, at worst not packed.
std::size_t PackedBytesOf(std::size_t bytes) {
  constexpr std::size_t kBlockBytes = 128 << 10, kHeads = 4 << 10;
  return bytes + bytes / 16 + kBlockBytes + kHeads;
}

// Piece by piece: a segment is larger than what its owner wants to have in memory for it.
Status PackSegment(const std::filesystem::path& live, const std::filesystem::path& archived) {
  THRESHER_ASSIGN_OR_RETURN(const FileHandle file, FileHandle::Open(live, O_RDONLY));
  THRESHER_ASSIGN_OR_RETURN(const std::uint64_t size, file.Size());
  THRESHER_ASSIGN_OR_RETURN(AtomicFile packed, AtomicFile::Create(archived));
  ZstdPacker packer(kArchiveLevel, size);
  for (std::uint64_t offset = 0; offset < size;) {
    THRESHER_ASSIGN_OR_RETURN(const std::string piece, file.ReadAt(offset, kPieceBytes));
    if (piece.empty()) return Damage(live, "became shorter while it was read");
    offset += piece.size();
    THRESHER_ASSIGN_OR_RETURN(const std::string bytes, packer.Add(piece, offset >= size));
    THRESHER_RETURN_IF_ERROR(packed.Append(bytes));
  }
  return packed.Publish();
}

}  // namespace

std::filesystem::path SegmentPath(const std::filesystem::path& folder, std::uint32_t segment) {
  return folder / NameOf(segment, ".log");
}

std::filesystem::path ArchivedPath(const std::filesystem::path& folder, std::uint32_t segment) {
  return folder / kArchiveName / NameOf(segment, ".log.zst");
}

// first.bin: magic, segment u32, zero u32, sequence u64, previous u64, XXH3-64 of all before.
Result<LogCursor> ReadBegin(const std::filesystem::path& folder) {
  LogCursor begin;
  begin.position = {kFirstSegment, kSegmentHeaderBytes};
  Result<std::string> bytes = ReadFile(folder / kFirstName);
  if (bytes.status().code() == StatusCode::kNotFound) return begin;
  if (!bytes.ok()) return bytes.status();
  const char* at = bytes->data();
  if (bytes->size() != kFirstBytes || !bytes->starts_with(kFirstMagic) ||
      HashBytes64(AsBytes(std::string_view(*bytes).substr(0, kFirstBytes - 8))) !=
          LoadLittle<std::uint64_t>(at + kFirstBytes - 8)) {
    return Damage(folder / kFirstName, "is damaged");
  }
  begin.position.segment = LoadLittle<std::uint32_t>(at + 8);
  begin.sequence = LoadLittle<std::uint64_t>(at + 16);
  begin.previous = LoadLittle<std::uint64_t>(at + 24);
  return begin;
}

Status WriteBegin(const std::filesystem::path& folder, const LogCursor& begin) {
  std::string bytes(kFirstMagic);
  AppendLittle<std::uint32_t>(bytes, begin.position.segment);
  AppendLittle<std::uint32_t>(bytes, 0);
  AppendLittle<std::uint64_t>(bytes, begin.sequence);
  AppendLittle<std::uint64_t>(bytes, begin.previous);
  AppendLittle<std::uint64_t>(bytes, HashBytes64(AsBytes(bytes)));
  return WriteFileAtomic(folder / kFirstName, bytes);
}

Result<std::vector<LogSegment>> ListSegments(const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(const auto entries, Files().List(folder));
  THRESHER_ASSIGN_OR_RETURN(const LogCursor begin, ReadBegin(folder));
  std::map<std::uint32_t, bool> numbers;  // archived; one that lies in both places is not
  for (const std::string& name : NamesIn(folder / kArchiveName)) {
    if (auto number = SegmentNumber(name, ".log.zst")) numbers[*number] = true;
  }
  for (const FileSystem::Entry& entry : entries) {
    if (auto number = SegmentNumber(entry.name, ".log")) numbers[*number] = false;
  }
  std::vector<LogSegment> segments;
  std::uint32_t expected = begin.position.segment;
  for (auto it = numbers.lower_bound(expected); it != numbers.end(); ++it, ++expected) {
    if (it->first != expected) {
      return Damage(SegmentPath(folder, expected), "the segment is missing");
    }
    segments.push_back({it->first, it->second});
  }
  if (segments.empty() && begin.sequence > 0) {
    return Damage(SegmentPath(folder, expected), "the segment is missing");
  }
  return segments;
}

Result<std::string> ReadSegmentBytes(const std::filesystem::path& folder,
                                     const LogSegment& segment) {
  const std::filesystem::path path = ArchivedPath(folder, segment.number);
  if (!segment.archived) {
    Result<std::string> bytes = ReadFile(SegmentPath(folder, segment.number));
    const bool gone = bytes.status().code() == StatusCode::kNotFound;
    if (!gone || !Exists(path)) return bytes;  // archived since it was listed
  }
  THRESHER_ASSIGN_OR_RETURN(const std::string packed, ReadFile(path));
  std::string bytes;
  const Status status = Unzstd(packed, kMaxSegmentBytes, &bytes);
  if (!status.ok()) return Damage(path, status.message());
  return bytes;
}

Result<std::string> FirstRecordBytes(const std::filesystem::path& folder,
                                     const LogSegment& segment) {
  if (!segment.archived) {
    std::string bytes;
    const auto record =
        ReadLogRecordAt(folder, {segment.number, record_log::kSegmentHeaderBytes}, &bytes);
    if (record.ok()) return bytes;
    if (record.status().code() != StatusCode::kNotFound) return record.status();
  }
  const std::filesystem::path path = ArchivedPath(folder, segment.number);
  THRESHER_ASSIGN_OR_RETURN(const FileHandle file, FileHandle::Open(path, O_RDONLY));
  // Its head says how long it is; often the first look has it all.
  std::size_t needed = kSegmentHeaderBytes + kRecordHeaderBytes;
  while (true) {
    THRESHER_ASSIGN_OR_RETURN(const std::string packed, file.ReadAt(0, PackedBytesOf(needed)));
    Result<std::string> bytes = UnzstdBegin(packed, std::max(needed, kPieceBytes));
    if (!bytes.ok()) return Damage(path, bytes.status().message());
    if (bytes->size() < needed) return Damage(path, "its first record: cut off");
    const std::size_t whole = kSegmentHeaderBytes + kRecordOverheadBytes +
                              PayloadBytes(bytes->data() + kSegmentHeaderBytes);
    if (bytes->size() >= whole) return bytes->substr(kSegmentHeaderBytes);
    needed = whole;
  }
}

// Whatever lies there of older segments, also what an earlier deletion left.
Status RemoveSegmentsBefore(const std::filesystem::path& folder, std::uint32_t segment) {
  for (const auto& [place, suffix] :
       {std::pair{folder / kArchiveName, ".log.zst"}, std::pair{folder, ".log"}}) {
    for (const std::string& name : NamesIn(place)) {
      auto number = SegmentNumber(name, suffix);
      if (!number || *number >= segment) continue;
      THRESHER_RETURN_IF_ERROR(Files().Remove(place / name));
    }
  }
  return Status::Ok();
}

}  // namespace record_log

Result<std::vector<LogSegment>> ListLog(const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(auto segments, record_log::ListSegments(folder));
  for (LogSegment& segment : segments) {
    const auto path = segment.archived ? record_log::ArchivedPath(folder, segment.number)
                                       : record_log::SegmentPath(folder, segment.number);
    THRESHER_ASSIGN_OR_RETURN(const FileInfo info, Files().Stat(path, /*follow_links=*/true));
    segment.bytes = info.size;
  }
  return segments;
}

Result<LogCursor> LogBegin(const std::filesystem::path& folder) {
  return record_log::ReadBegin(folder);
}

Status ArchiveSegment(const std::filesystem::path& folder, std::uint32_t segment) {
  const std::filesystem::path live = record_log::SegmentPath(folder, segment);
  const std::filesystem::path archived = record_log::ArchivedPath(folder, segment);
  THRESHER_RETURN_IF_ERROR(CreateDirectories(archived.parent_path()));
  THRESHER_RETURN_IF_ERROR(record_log::PackSegment(live, archived));
  THRESHER_RETURN_IF_ERROR(SyncDirectory(folder));  // the name of the archive, before this one goes
  THRESHER_RETURN_IF_ERROR(Files().Remove(live));
  return SyncDirectory(folder);
}

Status DeleteSegmentsBefore(const std::filesystem::path& folder, std::uint32_t segment) {
  THRESHER_ASSIGN_OR_RETURN(const auto segments, record_log::ListSegments(folder));
  const auto first = std::ranges::find(segments, segment, &LogSegment::number);
  if (first == segments.end()) {
    return NotFound(record_log::SegmentPath(folder, segment).string() + ": no segment");
  }
  if (first == segments.begin()) return Status::Ok();
  THRESHER_ASSIGN_OR_RETURN(const std::string bytes, record_log::FirstRecordBytes(folder, *first));
  const auto record = record_log::ParseRecord(bytes);
  if (!record.ok()) {
    return Damage(record_log::SegmentPath(folder, segment),
                  "its first record: " + record.status().message());
  }
  LogCursor begin{{segment, record_log::kSegmentHeaderBytes}, record->sequence, record->previous};
  THRESHER_RETURN_IF_ERROR(record_log::WriteBegin(folder, begin));
  return record_log::RemoveSegmentsBefore(folder, segment);
}

}  // namespace thresher
