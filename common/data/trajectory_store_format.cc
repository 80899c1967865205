#include "common/data/trajectory_store_format.h"

#include <utility>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/zstd_bytes.h"

namespace thresher::trajectory_store {
namespace {

constexpr std::size_t kBlockEntryBytes = 36;  // before the bytes
constexpr std::size_t kArraysBytes = 8 * kMostArrays;
constexpr int kZstdLevel = 1;

void AppendHash(std::string& out, const Hash128& hash) {
  AppendLittle<std::uint64_t>(out, hash.high);
  AppendLittle<std::uint64_t>(out, hash.low);
}

// Takes values off a string whose size was checked before.
class Taker {
 public:
  explicit Taker(std::string_view bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size(); }
  template <typename T>
  T Number() {
    T value = LoadLittle<T>(bytes_.data());
    bytes_.remove_prefix(sizeof(T));
    return value;
  }
  Hash128 Hash() {
    Hash128 hash;
    hash.high = Number<std::uint64_t>();
    hash.low = Number<std::uint64_t>();
    return hash;
  }
  // Nothing when a part is out of range.
  std::optional<TrajectoryId> Id() {
    TrajectoryId id;
    id.stream = static_cast<Stream>(Number<std::uint8_t>());
    bool zero = Number<std::uint8_t>() == 0;
    id.island = Number<std::uint16_t>();
    id.sample = Number<std::uint32_t>();
    id.item = Number<std::uint64_t>();
    if (!zero || !id.InRange()) return std::nullopt;
    return id;
  }
  std::string_view Bytes(std::size_t size) {
    std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

 private:
  std::string_view bytes_;
};

// A whole block as it is before compression, with what stands before each trajectory's bytes.
void AppendHead(std::string& out, const StoredRecord& record) {
  AppendId(out, record.id);
  AppendHash(out, record.content_hash);
  AppendLittle<std::uint32_t>(out, static_cast<std::uint32_t>(record.bytes.size()));
}

// The size of a block as kind kPlain. Error: kOutOfRange.
Result<std::size_t> PlainSize(const std::vector<StoredRecord>& records) {
  std::size_t size = 4;
  for (const StoredRecord& record : records) size += kBlockEntryBytes + record.bytes.size();
  const std::size_t most = size + records.size() * kArraysBytes;  // in any other kind
  if (most <= kMaxBlockBytes) return size;
  return OutOfRange("a block of " + std::to_string(most) +
                    " bytes; allowed: " + std::to_string(kMaxBlockBytes));
}

// The bytes outside the arrays.
template <typename Visit>
void ForEachGap(const ArrayRanges& arrays, std::size_t size, Visit visit) {
  std::size_t begin = 0;
  for (const ArrayRange& array : arrays) {
    if (array.bytes == 0) continue;
    visit(begin, array.offset - begin);
    begin = array.offset + array.bytes;
  }
  visit(begin, size - begin);
}

// Numbers of 4 bytes to and from four planes of `plane` bytes each.
void ToPlanes(const char* numbers, std::size_t count, char* out, std::size_t plane) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t byte = 0; byte < 4; ++byte) out[byte * plane + i] = numbers[4 * i + byte];
  }
}
void FromPlanes(const char* planes, std::size_t plane, std::size_t count, char* numbers) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t byte = 0; byte < 4; ++byte) numbers[4 * i + byte] = planes[byte * plane + i];
  }
}

std::string Shuffled(const std::vector<StoredRecord>& records, std::size_t size) {
  std::string out;
  out.reserve(size + records.size() * kArraysBytes);
  AppendLittle<std::uint32_t>(out, static_cast<std::uint32_t>(records.size()));
  std::array<std::size_t, kMostArrays> totals{};
  for (const StoredRecord& record : records) {
    AppendHead(out, record);
    for (std::size_t k = 0; k < kMostArrays; ++k) {
      AppendLittle<std::uint32_t>(out, record.arrays[k].offset);
      AppendLittle<std::uint32_t>(out, record.arrays[k].bytes);
      totals[k] += record.arrays[k].bytes;
    }
  }
  for (const StoredRecord& record : records) {
    ForEachGap(record.arrays, record.bytes.size(), [&](std::size_t begin, std::size_t bytes) {
      out.append(record.bytes.view().substr(begin, bytes));
    });
  }
  for (std::size_t k = 0; k < kMostArrays; ++k) {
    std::size_t at = out.size();
    out.resize(at + totals[k]);
    for (const StoredRecord& record : records) {
      const ArrayRange& array = record.arrays[k];
      ToPlanes(record.bytes.data() + array.offset, array.bytes / 4, out.data() + at, totals[k] / 4);
      at += array.bytes / 4;
    }
  }
  return out;
}

// Whether arrays are what StoredRecord says of them.
bool Fit(const ArrayRanges& arrays, std::size_t size) {
  std::size_t begin = 0;
  bool last = false;
  for (const ArrayRange& array : arrays) {
    last = last || array.bytes == 0;
    if (last && array != ArrayRange{}) return false;
    if (array.bytes % 4 != 0 || (!last && array.offset < begin)) return false;
    begin = std::size_t{array.offset} + array.bytes;
    if (begin > size) return false;
  }
  return true;
}

struct Head {
  TrajectoryId id;
  Hash128 content_hash;
  std::size_t bytes = 0;
  ArrayRanges arrays{};
};

// Error: kDataLoss.
Result<Head> TakeHead(Taker& taker, std::uint32_t number, bool with_arrays) {
  if (taker.left() < kBlockEntryBytes + (with_arrays ? kArraysBytes : 0)) {
    return DataLoss("block: cut off");
  }
  std::optional<TrajectoryId> id = taker.Id();
  if (!id) return DataLoss("block: number " + std::to_string(number) + " has an id out of range");
  Head head{*id, taker.Hash(), 0, {}};
  head.bytes = taker.Number<std::uint32_t>();
  for (std::size_t k = 0; with_arrays && k < kMostArrays; ++k) {
    head.arrays[k].offset = taker.Number<std::uint32_t>();
    head.arrays[k].bytes = taker.Number<std::uint32_t>();
  }
  if (!Fit(head.arrays, head.bytes)) {
    return DataLoss("block: number " + std::to_string(number) + " has arrays out of place");
  }
  return head;
}

Result<std::uint32_t> TakeCount(Taker& taker, std::size_t entry_bytes) {
  if (taker.left() < 4) return DataLoss("block: cut off");
  const auto count = taker.Number<std::uint32_t>();
  if (count > taker.left() / entry_bytes) return DataLoss("block: more records than bytes");
  return count;
}

Result<std::vector<BlockRecord>> DecodePlain(std::string_view plain) {
  Taker taker(plain);
  THRESHER_ASSIGN_OR_RETURN(const std::uint32_t count, TakeCount(taker, kBlockEntryBytes));
  std::vector<BlockRecord> records;
  records.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    THRESHER_ASSIGN_OR_RETURN(const Head head, TakeHead(taker, i, false));
    if (head.bytes > taker.left()) return DataLoss("block: cut off");
    records.push_back({head.id, head.content_hash, taker.Bytes(head.bytes)});
  }
  if (taker.left() != 0) return DataLoss("block: bytes behind its last record");
  return records;
}

// `shuffled` to *storage in the order of the trajectories.
Result<std::vector<BlockRecord>> DecodeShuffled(std::string_view shuffled, std::string* storage) {
  Taker taker(shuffled);
  THRESHER_ASSIGN_OR_RETURN(const std::uint32_t count,
                            TakeCount(taker, kBlockEntryBytes + kArraysBytes));
  std::vector<Head> heads;
  heads.reserve(count);
  std::array<std::size_t, kMostArrays> totals{};
  std::size_t total = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    THRESHER_ASSIGN_OR_RETURN(Head head, TakeHead(taker, i, true));
    total += head.bytes;
    for (std::size_t k = 0; k < kMostArrays; ++k) totals[k] += head.arrays[k].bytes;
    heads.push_back(std::move(head));
  }
  if (total != taker.left()) return DataLoss("block: its records are not as long as it says");
  storage->resize(total);
  std::vector<BlockRecord> records;
  records.reserve(count);
  std::size_t at = 0;
  for (const Head& head : heads) {
    ForEachGap(head.arrays, head.bytes, [&](std::size_t begin, std::size_t bytes) {
      taker.Bytes(bytes).copy(storage->data() + at + begin, bytes);
    });
    records.push_back(
        {head.id, head.content_hash, std::string_view(*storage).substr(at, head.bytes)});
    at += head.bytes;
  }
  for (std::size_t k = 0; k < kMostArrays; ++k) {
    const std::string_view planes = taker.Bytes(totals[k]);
    std::size_t number = 0;
    at = 0;
    for (const Head& head : heads) {
      const ArrayRange& array = head.arrays[k];
      FromPlanes(planes.data() + number, totals[k] / 4, array.bytes / 4,
                 storage->data() + at + array.offset);
      number += array.bytes / 4;
      at += head.bytes;
    }
  }
  return records;
}

}  // namespace

void AppendId(std::string& out, const TrajectoryId& id) {
  AppendLittle<std::uint8_t>(out, static_cast<std::uint8_t>(id.stream));
  AppendLittle<std::uint8_t>(out, 0);
  AppendLittle<std::uint16_t>(out, id.island);
  AppendLittle<std::uint32_t>(out, id.sample);
  AppendLittle<std::uint64_t>(out, id.item);
}

Result<std::vector<std::string_view>> PlainPieces(const std::vector<StoredRecord>& records,
                                                  std::string* heads) {
  THRESHER_RETURN_IF_ERROR(PlainSize(records).status());
  heads->clear();
  heads->reserve(4 + records.size() * kBlockEntryBytes);  // views into it stay good
  AppendLittle<std::uint32_t>(*heads, static_cast<std::uint32_t>(records.size()));
  std::vector<std::string_view> pieces = {*heads};
  for (const StoredRecord& record : records) {
    const std::size_t begin = heads->size();
    AppendHead(*heads, record);
    pieces.push_back(std::string_view(*heads).substr(begin));
    pieces.push_back(record.bytes.view());
  }
  return pieces;
}

Result<EncodedBlock> EncodeBlock(const std::vector<StoredRecord>& records,
                                 Compression compression) {
  for (const StoredRecord& record : records) {
    THRESHER_CHECK(Fit(record.arrays, record.bytes.size()), "arrays outside their record");
  }
  if (compression == Compression::kNone) {
    EncodedBlock block;
    std::string heads;
    THRESHER_ASSIGN_OR_RETURN(const auto pieces, PlainPieces(records, &heads));
    for (std::string_view piece : pieces) block.payload.append(piece);
    return block;
  }
  THRESHER_ASSIGN_OR_RETURN(const std::size_t size, PlainSize(records));
  THRESHER_ASSIGN_OR_RETURN(std::string payload, Zstd(Shuffled(records, size), kZstdLevel));
  return EncodedBlock{BlockKind::kShuffled, std::move(payload)};
}

Result<std::vector<BlockRecord>> DecodeBlock(std::uint32_t kind, std::string_view payload,
                                             std::string* storage) {
  if (kind == static_cast<std::uint32_t>(BlockKind::kPlain)) {
    if (payload.size() > kMaxBlockBytes) return DataLoss("block: longer than one may be");
    return DecodePlain(payload);
  }
  const bool shuffled = kind == static_cast<std::uint32_t>(BlockKind::kShuffled);
  if (!shuffled && kind != static_cast<std::uint32_t>(BlockKind::kZstd)) {
    return DataLoss("kind " + std::to_string(kind) + " is no block");
  }
  std::string plain;
  Status unpacked = Unzstd(payload, kMaxBlockBytes, shuffled ? &plain : storage);
  if (!unpacked.ok()) return DataLoss("block: " + unpacked.message());
  return shuffled ? DecodeShuffled(plain, storage) : DecodePlain(*storage);
}

}  // namespace thresher::trajectory_store
