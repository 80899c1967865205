#pragma once

// Internal to common/data: the bytes of record log segments (record_log.h tells the layout).

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/data/record_log.h"

namespace thresher::record_log {

inline constexpr std::uint32_t kFormat = 1;
inline constexpr std::size_t kSegmentHeaderBytes = 32;
inline constexpr std::size_t kRecordHeaderBytes = 24;
inline constexpr std::size_t kRecordOverheadBytes = kRecordHeaderBytes + 8;
inline constexpr std::size_t kMaxPayloadBytes = std::size_t{1} << 30;
inline constexpr std::uint32_t kFirstSegment = 1;

std::filesystem::path SegmentPath(const std::filesystem::path& folder, std::uint32_t segment);
std::filesystem::path ArchivedPath(const std::filesystem::path& folder, std::uint32_t segment);
// Where the log begins: at segment 1, or where `first.bin` says since older segments were deleted.
// Error: kDataLoss (first.bin is damaged).
Result<LogCursor> ReadBegin(const std::filesystem::path& folder);
// Writes first.bin.
Status WriteBegin(const std::filesystem::path& folder, const LogCursor& begin);
// The segments of the log from its beginning on, ascending; other files are ignored. Errors:
// kNotFound (no folder), kDataLoss (a segment of the middle or the first is missing; names it).
Result<std::vector<LogSegment>> ListSegments(const std::filesystem::path& folder);
Status RemoveSegmentsBefore(const std::filesystem::path& folder, std::uint32_t segment);
// The bytes of a segment, decompressed. Errors: kNotFound, kDataLoss (no zstd frame).
Result<std::string> ReadSegmentBytes(const std::filesystem::path& folder,
                                     const LogSegment& segment);

// What begins with the first record of a segment, that one whole. Errors: kNotFound, kDataLoss.
Result<std::string> FirstRecordBytes(const std::filesystem::path& folder,
                                     const LogSegment& segment);

std::string EncodeSegmentHeader(std::uint32_t segment, std::uint64_t first_sequence);
// The first sequence of segment `segment`. Error: kDataLoss, without the path.
Result<std::uint64_t> DecodeSegmentHeader(std::string_view bytes, std::uint32_t segment);

// The length of a record that follows bytes which no sync had covered has this bit.
inline constexpr std::uint32_t kFollowsUnsynced = 1u << 31;

// Appends one record to `out`, its payload in pieces; returns its checksum.
std::uint64_t AppendRecord(std::string& out, std::uint32_t kind, std::uint64_t sequence,
                           std::uint64_t previous, std::span<const std::string_view> payload,
                           bool follows_unsynced = false);
inline std::uint64_t AppendRecord(std::string& out, std::uint32_t kind, std::uint64_t sequence,
                                  std::uint64_t previous, std::string_view payload,
                                  bool follows_unsynced = false) {
  return AppendRecord(out, kind, sequence, previous, std::span(&payload, 1), follows_unsynced);
}
std::size_t PayloadSize(std::span<const std::string_view> pieces);
// The payload's size, from the first bytes of a record.
std::uint32_t PayloadBytes(const char* record);

struct ParsedRecord {
  bool follows_unsynced = false;
  std::uint32_t kind = 0;
  std::uint64_t sequence = 0;
  std::uint64_t previous = 0;
  std::string_view payload;
  std::uint64_t checksum = 0;
  std::size_t size() const { return kRecordOverheadBytes + payload.size(); }
};
// The record at the start of `bytes`, whatever stands behind it. Error: kDataLoss "cut off" or
// "checksum".
Result<ParsedRecord> ParseRecord(std::string_view bytes);

// Walks the records of one segment held in memory.
class SegmentScanner {
 public:
  // `bytes`: the whole segment file. Starts at `offset` with record `sequence`; its `previous` is
  // compared unless unknown (the first record of a segment read without the one before).
  SegmentScanner(std::string_view bytes, std::uint64_t offset, std::uint64_t sequence,
                 std::optional<std::uint64_t> previous)
      : bytes_(bytes), offset_(offset), sequence_(sequence), previous_(previous) {}

  // The next record, or nothing where the chain of valid records ends.
  std::optional<ParsedRecord> Next();

  std::uint64_t offset() const { return offset_; }
  std::uint64_t sequence() const { return sequence_; }
  std::optional<std::uint64_t> previous() const { return previous_; }

  // After Next returned nothing: bytes up to the last one that is not zero (0: a clean end).
  std::uint64_t TailBytes() const;
  // Whether the tail is torn rather than damaged: no record of this chain, or a later one, is in
  // it that was made when what stands before it was on disk.
  bool TailIsTorn() const;
  // "record 17 at offset 1234: checksum"
  std::string Problem() const;

 private:
  std::string_view bytes_;
  std::uint64_t offset_;
  std::uint64_t sequence_;
  std::optional<std::uint64_t> previous_;
  std::string problem_;
};

// What a segment file that is not as it should be is reported as.
Status Damage(const std::filesystem::path& segment_path, const std::string& problem);

}  // namespace thresher::record_log
