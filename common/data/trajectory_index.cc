#include "common/data/trajectory_index.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/record_log_format.h"
#include "common/data/trajectory_store_format.h"

namespace thresher::trajectory_store {
namespace {

constexpr std::string_view kMagic("THRIDX2\0", 8);
constexpr std::uint32_t kFormat = 2;
constexpr std::size_t kCountOffset = 8 + 4 + 4 + 8 + 8;
constexpr std::size_t kRangesOffset = kCountOffset + 8;
constexpr std::size_t kHeaderBytes = kRangesOffset + kStreamCount * 16;
constexpr std::size_t kEntryBytes = 48;
constexpr std::size_t kOrderBytes = 4;
constexpr std::size_t kChecksumBytes = 8;

void AppendEntry(std::string& out, const Entry& entry) {
  AppendId(out, entry.id);
  AppendLittle<std::uint64_t>(out, entry.content_hash.high);
  AppendLittle<std::uint64_t>(out, entry.content_hash.low);
  AppendLittle<std::uint32_t>(out, entry.position.segment);
  AppendLittle<std::uint32_t>(out, entry.number);
  AppendLittle<std::uint64_t>(out, entry.position.offset);
}

std::vector<std::uint32_t> OrderOf(const std::vector<Entry>& entries) {
  std::vector<std::uint32_t> order(entries.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, {}, [&](std::uint32_t i) { return entries[i].id; });
  return order;
}

// Whether the segment ends where the index says, with the record that it says.
bool FitsSegment(const std::filesystem::path& folder, std::uint32_t segment,
                 const IndexView& view) {
  Result<FileHandle> file = FileHandle::Open(record_log::SegmentPath(folder, segment), O_RDONLY);
  if (!file.ok()) return false;
  Result<std::uint64_t> size = file->Size();
  if (!size.ok() || *size != view.covered_bytes()) return false;
  if (view.size() == 0) return *size == record_log::kSegmentHeaderBytes;
  Result<std::string> checksum = file->ReadAt(*size - kChecksumBytes, kChecksumBytes);
  return checksum.ok() && checksum->size() == kChecksumBytes &&
         LoadLittle<std::uint64_t>(checksum->data()) == view.last_checksum();
}

}  // namespace

std::filesystem::path IndexPath(const std::filesystem::path& folder, std::uint32_t segment) {
  return record_log::SegmentPath(folder, segment).replace_extension(".idx");
}

std::string EncodeIndex(const SegmentEntries& segment) {
  struct Range {
    std::uint64_t least = UINT64_MAX, largest = 0;
  } ranges[kStreamCount];
  for (const Entry& entry : segment.entries) {
    Range& range = ranges[static_cast<std::size_t>(entry.id.stream)];
    range.least = std::min(range.least, entry.id.item);
    range.largest = std::max(range.largest, entry.id.item);
  }
  std::string bytes(kMagic);
  bytes.reserve(kHeaderBytes + (kEntryBytes + kOrderBytes) * segment.entries.size() + 8);
  AppendLittle<std::uint32_t>(bytes, kFormat);
  AppendLittle<std::uint32_t>(bytes, segment.segment);
  AppendLittle<std::uint64_t>(bytes, segment.bytes);
  AppendLittle<std::uint64_t>(bytes, segment.checksum);
  AppendLittle<std::uint64_t>(bytes, segment.entries.size());
  for (const Range& range : ranges) {
    AppendLittle<std::uint64_t>(bytes, range.least);
    AppendLittle<std::uint64_t>(bytes, range.largest);
  }
  for (const Entry& entry : segment.entries) AppendEntry(bytes, entry);
  for (std::uint32_t number : OrderOf(segment.entries)) {
    AppendLittle<std::uint32_t>(bytes, number);
  }
  AppendLittle<std::uint64_t>(bytes, HashBytes64(AsBytes(bytes)));
  return bytes;
}

std::optional<IndexView> IndexView::Open(std::string_view bytes, std::uint32_t segment) {
  if (bytes.size() < kHeaderBytes + kChecksumBytes || !bytes.starts_with(kMagic)) {
    return std::nullopt;
  }
  const std::string_view covered = bytes.substr(0, bytes.size() - kChecksumBytes);
  if (HashBytes64(AsBytes(covered)) != LoadLittle<std::uint64_t>(bytes.data() + covered.size()) ||
      LoadLittle<std::uint32_t>(bytes.data() + 8) != kFormat ||
      LoadLittle<std::uint32_t>(bytes.data() + 12) != segment) {
    return std::nullopt;
  }
  const std::uint64_t count = LoadLittle<std::uint64_t>(bytes.data() + kCountOffset);
  const std::uint64_t room = covered.size() - kHeaderBytes;
  if (room % (kEntryBytes + kOrderBytes) != 0 || count != room / (kEntryBytes + kOrderBytes)) {
    return std::nullopt;
  }
  return IndexView(bytes, count);
}

std::uint64_t IndexView::covered_bytes() const {
  return LoadLittle<std::uint64_t>(bytes_.data() + 16);
}

std::uint64_t IndexView::last_checksum() const {
  return LoadLittle<std::uint64_t>(bytes_.data() + 24);
}

TrajectoryId IndexView::IdAt(std::uint64_t number) const {
  const char* at = bytes_.data() + kHeaderBytes + number * kEntryBytes;
  TrajectoryId id;
  id.stream = static_cast<Stream>(LoadLittle<std::uint8_t>(at));
  id.island = LoadLittle<std::uint16_t>(at + 2);
  id.sample = LoadLittle<std::uint32_t>(at + 4);
  id.item = LoadLittle<std::uint64_t>(at + 8);
  return id;
}

Entry IndexView::at(std::uint64_t number) const {
  const char* at = bytes_.data() + kHeaderBytes + number * kEntryBytes + 16;
  Entry entry;
  entry.id = IdAt(number);
  entry.content_hash = {LoadLittle<std::uint64_t>(at), LoadLittle<std::uint64_t>(at + 8)};
  entry.position.segment = LoadLittle<std::uint32_t>(at + 16);
  entry.number = LoadLittle<std::uint32_t>(at + 20);
  entry.position.offset = LoadLittle<std::uint64_t>(at + 24);
  return entry;
}

std::uint32_t IndexView::ByOrder(std::uint64_t rank) const {
  return LoadLittle<std::uint32_t>(bytes_.data() + kHeaderBytes + count_ * kEntryBytes +
                                   rank * kOrderBytes);
}

std::optional<Entry> IndexView::Find(const TrajectoryId& id) const {
  const auto stream = static_cast<std::size_t>(id.stream);
  if (stream >= static_cast<std::size_t>(kStreamCount)) return std::nullopt;
  const char* range = bytes_.data() + kRangesOffset + stream * 16;
  if (id.item < LoadLittle<std::uint64_t>(range) ||
      id.item > LoadLittle<std::uint64_t>(range + 8)) {
    return std::nullopt;
  }
  std::uint64_t low = 0, high = count_;  // the first rank whose id is larger
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    const std::uint32_t number = ByOrder(middle);
    if (number >= count_) return std::nullopt;  // a writer of lies: the checksum is no signature
    if (IdAt(number) <= id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0 || IdAt(ByOrder(low - 1)) != id) return std::nullopt;
  return at(ByOrder(low - 1));
}

Result<SegmentEntries> ScanSegment(const std::filesystem::path& folder, std::uint32_t segment) {
  SegmentEntries found;
  found.segment = segment;
  found.bytes = record_log::kSegmentHeaderBytes;
  std::string storage;
  THRESHER_RETURN_IF_ERROR(ReadLogSegment(folder, segment, [&](const LogRecord& record) -> Status {
    const auto where = [&] {
      return folder.string() + ": log record " + std::to_string(record.sequence);
    };
    auto block = DecodeBlock(record.kind, record.payload, &storage);
    if (!block.ok()) return block.status().WithContext(where());
    std::uint32_t number = 0;
    for (const BlockRecord& stored : *block) {
      found.entries.push_back({stored.id, stored.content_hash, record.position, number++});
    }
    found.bytes = LogCursor::After(record).position.offset;
    found.checksum = record.checksum;
    return Status::Ok();
  }));
  return found;
}

Result<SegmentIndex> SegmentIndex::Load(const std::filesystem::path& folder,
                                        std::uint32_t segment) {
  Result<MappedFile> mapped = MappedFile::Open(IndexPath(folder, segment));
  if (mapped.ok()) {
    std::optional<IndexView> view = IndexView::Open(mapped->bytes(), segment);
    if (view && FitsSegment(folder, segment, *view)) {
      SegmentIndex index(*view);
      index.mapped_ = *std::move(mapped);
      return index;
    }
  }
  THRESHER_ASSIGN_OR_RETURN(const SegmentEntries entries, ScanSegment(folder, segment));
  auto made = std::make_unique<std::string>(EncodeIndex(entries));
  SegmentIndex index(*IndexView::Open(*made, segment));
  index.made_ = std::move(made);
  return index;
}

}  // namespace thresher::trajectory_store
