#include "common/data/record_log_format.h"

#include <algorithm>
#include <cstring>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/file_handle.h"

namespace thresher::record_log {
namespace {

constexpr std::string_view kMagic("THRLOG1\0", 8);

}  // namespace

std::string EncodeSegmentHeader(std::uint32_t segment, std::uint64_t first_sequence) {
  std::string header(kMagic);
  AppendLittle<std::uint32_t>(header, kFormat);
  AppendLittle<std::uint32_t>(header, segment);
  AppendLittle<std::uint64_t>(header, first_sequence);
  AppendLittle<std::uint64_t>(header, HashBytes64(AsBytes(header)));
  return header;
}

Result<std::uint64_t> DecodeSegmentHeader(std::string_view bytes, std::uint32_t segment) {
  if (bytes.size() < kSegmentHeaderBytes) return DataLoss("segment header: cut off");
  if (bytes.substr(0, kMagic.size()) != kMagic) return DataLoss("segment header: magic");
  if (HashBytes64(AsBytes(bytes.substr(0, 24))) != LoadLittle<std::uint64_t>(bytes.data() + 24)) {
    return DataLoss("segment header: checksum");
  }
  std::uint32_t format = LoadLittle<std::uint32_t>(bytes.data() + 8);
  if (format != kFormat) {
    return DataLoss("segment header: format " + std::to_string(format) +
                    "; ours: " + std::to_string(kFormat));
  }
  std::uint32_t number = LoadLittle<std::uint32_t>(bytes.data() + 12);
  if (number != segment) {
    return DataLoss("segment header: holds segment " + std::to_string(number));
  }
  return LoadLittle<std::uint64_t>(bytes.data() + 16);
}

std::uint32_t PayloadBytes(const char* record) {
  return LoadLittle<std::uint32_t>(record) & ~kFollowsUnsynced;
}

std::size_t PayloadSize(std::span<const std::string_view> pieces) {
  std::size_t size = 0;
  for (std::string_view piece : pieces) size += piece.size();
  return size;
}

std::uint64_t AppendRecord(std::string& out, std::uint32_t kind, std::uint64_t sequence,
                           std::uint64_t previous, std::span<const std::string_view> payload,
                           bool follows_unsynced) {
  const std::size_t begin = out.size(), size = PayloadSize(payload);
  if (const std::size_t end = begin + kRecordOverheadBytes + size; end > out.capacity()) {
    out.reserve(std::max(end, 2 * out.capacity()));
  }
  AppendLittle<std::uint32_t>(
      out, static_cast<std::uint32_t>(size) | (follows_unsynced ? kFollowsUnsynced : 0));
  AppendLittle<std::uint32_t>(out, kind);
  AppendLittle<std::uint64_t>(out, sequence);
  AppendLittle<std::uint64_t>(out, previous);
  for (std::string_view piece : payload) out.append(piece);
  std::uint64_t checksum = HashBytes64(AsBytes(std::string_view(out).substr(begin)));
  AppendLittle<std::uint64_t>(out, checksum);
  return checksum;
}

Result<ParsedRecord> ParseRecord(std::string_view bytes) {
  if (bytes.size() < kRecordOverheadBytes) return DataLoss("cut off");
  std::uint32_t length = PayloadBytes(bytes.data());
  if (length > bytes.size() - kRecordOverheadBytes) return DataLoss("cut off");
  ParsedRecord record;
  record.follows_unsynced = (LoadLittle<std::uint32_t>(bytes.data()) & kFollowsUnsynced) != 0;
  record.kind = LoadLittle<std::uint32_t>(bytes.data() + 4);
  record.sequence = LoadLittle<std::uint64_t>(bytes.data() + 8);
  record.previous = LoadLittle<std::uint64_t>(bytes.data() + 16);
  record.payload = bytes.substr(kRecordHeaderBytes, length);
  record.checksum = LoadLittle<std::uint64_t>(bytes.data() + kRecordHeaderBytes + length);
  if (HashBytes64(AsBytes(bytes.substr(0, kRecordHeaderBytes + length))) != record.checksum) {
    return DataLoss("checksum");
  }
  return record;
}

std::optional<ParsedRecord> SegmentScanner::Next() {
  if (offset_ >= bytes_.size()) return std::nullopt;
  Result<ParsedRecord> record = ParseRecord(bytes_.substr(offset_));
  if (!record.ok()) {
    problem_ = record.status().message();
    return std::nullopt;
  }
  if (record->sequence != sequence_) {
    problem_ = "holds record " + std::to_string(record->sequence);
    return std::nullopt;
  }
  if (previous_ && record->previous != *previous_) {
    problem_ = "does not follow the record before it";
    return std::nullopt;
  }
  offset_ += record->size();
  sequence_ += 1;
  previous_ = record->checksum;
  return *record;
}

std::uint64_t SegmentScanner::TailBytes() const {
  std::uint64_t end = bytes_.size();
  while (end > offset_ && bytes_[end - 1] == '\0') --end;
  return end > offset_ ? end - offset_ : 0;
}

bool SegmentScanner::TailIsTorn() const {
  std::uint64_t tail = TailBytes();
  // A whole record with a fitting checksum was written, not torn, even if it breaks the chain.
  if (ParseRecord(bytes_.substr(offset_)).ok()) return false;
  // Any later record of the chain: its sequence is beyond the expected one, by less than the number
  // of records that fit in between. Only such candidates cost a checksum.
  for (std::uint64_t at = offset_ + 1; at + kRecordHeaderBytes <= offset_ + tail; ++at) {
    std::uint64_t ahead = LoadLittle<std::uint64_t>(bytes_.data() + at + 8) - sequence_;
    if (ahead == 0 || ahead > (at - offset_) / kRecordOverheadBytes + 1) continue;
    const Result<ParsedRecord> later = ParseRecord(bytes_.substr(at));
    if (later.ok() && !later->follows_unsynced) return false;
  }
  return true;
}

std::string SegmentScanner::Problem() const {
  return "record " + std::to_string(sequence_) + " at offset " + std::to_string(offset_) + ": " +
         problem_;
}

Status Damage(const std::filesystem::path& segment_path, const std::string& problem) {
  return DataLoss(segment_path.string() + ": " + problem);
}

}  // namespace thresher::record_log
