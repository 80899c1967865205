#include "common/data/trajectory_store_format.h"

#include <zstd.h>

#include <utility>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/files.h"

namespace thresher::trajectory_store {
namespace {

constexpr std::string_view kIndexMagic("THRIDX1\0", 8);
constexpr std::uint32_t kIndexFormat = 1;
constexpr std::size_t kIndexHeaderBytes = 8 + 4 + 4 + 4 + 4 + 8 + 8 + 8 + 8 + 8;
constexpr std::size_t kIndexEntryBytes = 48;
constexpr std::size_t kBlockEntryBytes = 36;  // before the bytes
constexpr int kZstdLevel = 1;

void AppendId(std::string& out, const TrajectoryId& id) {
  AppendLittle<std::uint8_t>(out, static_cast<std::uint8_t>(id.stream));
  AppendLittle<std::uint8_t>(out, 0);
  AppendLittle<std::uint16_t>(out, id.island);
  AppendLittle<std::uint32_t>(out, id.sample);
  AppendLittle<std::uint64_t>(out, id.item);
}

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

Status Decompress(std::string_view payload, std::string* storage) {
  unsigned long long size = ZSTD_getFrameContentSize(payload.data(), payload.size());
  if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size > kMaxBlockBytes) {
    return DataLoss("block: no zstd frame of an allowed size");
  }
  storage->resize(size);
  std::size_t result =
      ZSTD_decompress(storage->data(), storage->size(), payload.data(), payload.size());
  if (ZSTD_isError(result)) return DataLoss(std::string("block: ") + ZSTD_getErrorName(result));
  if (result != size) return DataLoss("block: shorter than its frame says");
  return Status::Ok();
}

// Whether the last record that the index covers stands in the log as it did.
bool FitsLog(const std::filesystem::path& folder, const Index& index) {
  if (index.covered.sequence == 0) return index.entries.empty();
  std::string storage;
  Result<LogRecord> last = ReadLogRecordAt(folder, index.last_record, &storage);
  return last.ok() && LogCursor::After(*last) == index.covered;
}

}  // namespace

Result<std::string> EncodeBlock(const std::vector<StoredRecord>& records) {
  std::size_t size = 4;
  for (const StoredRecord& record : records) size += kBlockEntryBytes + record.bytes.size();
  if (size > kMaxBlockBytes) {
    return OutOfRange("a block of " + std::to_string(size) +
                      " bytes; allowed: " + std::to_string(kMaxBlockBytes));
  }
  std::string plain;
  plain.reserve(size);
  AppendLittle<std::uint32_t>(plain, static_cast<std::uint32_t>(records.size()));
  for (const StoredRecord& record : records) {
    AppendId(plain, record.id);
    AppendHash(plain, record.content_hash);
    AppendLittle<std::uint32_t>(plain, static_cast<std::uint32_t>(record.bytes.size()));
    plain.append(record.bytes.view());
  }
  std::string payload(ZSTD_compressBound(plain.size()), '\0');
  std::size_t result =
      ZSTD_compress(payload.data(), payload.size(), plain.data(), plain.size(), kZstdLevel);
  if (ZSTD_isError(result)) return InternalError(std::string("zstd: ") + ZSTD_getErrorName(result));
  payload.resize(result);
  return payload;
}

Result<std::vector<BlockRecord>> DecodeBlock(std::string_view payload, std::string* storage) {
  THRESHER_RETURN_IF_ERROR(Decompress(payload, storage));
  if (storage->size() < 4) return DataLoss("block: cut off");
  Taker taker(*storage);
  std::uint32_t count = taker.Number<std::uint32_t>();
  if (count > taker.left() / kBlockEntryBytes) return DataLoss("block: more records than bytes");
  std::vector<BlockRecord> records;
  records.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (taker.left() < kBlockEntryBytes) return DataLoss("block: cut off");
    std::optional<TrajectoryId> id = taker.Id();
    if (!id) return DataLoss("block: number " + std::to_string(i) + " has an id out of range");
    Hash128 hash = taker.Hash();
    std::uint32_t length = taker.Number<std::uint32_t>();
    if (length > taker.left()) return DataLoss("block: cut off");
    records.push_back({*id, hash, taker.Bytes(length)});
  }
  if (taker.left() != 0) return DataLoss("block: bytes behind its last record");
  return records;
}

std::string EncodeIndex(const Index& index) {
  std::string bytes;
  bytes.reserve(kIndexHeaderBytes + kIndexEntryBytes * index.entries.size() + 8);
  bytes.append(kIndexMagic);
  AppendLittle<std::uint32_t>(bytes, kIndexFormat);
  AppendLittle<std::uint32_t>(bytes, 0);
  AppendLittle<std::uint32_t>(bytes, index.covered.position.segment);
  AppendLittle<std::uint32_t>(bytes, 0);
  AppendLittle<std::uint64_t>(bytes, index.covered.position.offset);
  AppendLittle<std::uint64_t>(bytes, index.covered.sequence);
  AppendLittle<std::uint64_t>(bytes, index.covered.previous);
  AppendLittle<std::uint64_t>(bytes, index.last_record.offset);
  AppendLittle<std::uint64_t>(bytes, index.entries.size());
  for (const Entry& entry : index.entries) {
    AppendId(bytes, entry.id);
    AppendHash(bytes, entry.content_hash);
    AppendLittle<std::uint32_t>(bytes, entry.position.segment);
    AppendLittle<std::uint32_t>(bytes, entry.number);
    AppendLittle<std::uint64_t>(bytes, entry.position.offset);
  }
  AppendLittle<std::uint64_t>(bytes, HashBytes64(AsBytes(bytes)));
  return bytes;
}

std::optional<Index> DecodeIndex(std::string_view bytes) {
  if (bytes.size() < kIndexHeaderBytes + 8) return std::nullopt;
  std::string_view covered = bytes.substr(0, bytes.size() - 8);
  if (HashBytes64(AsBytes(covered)) != LoadLittle<std::uint64_t>(bytes.data() + covered.size())) {
    return std::nullopt;
  }
  Taker taker(covered);
  if (taker.Bytes(8) != kIndexMagic || taker.Number<std::uint32_t>() != kIndexFormat) {
    return std::nullopt;
  }
  (void)taker.Number<std::uint32_t>();
  Index index;
  index.covered.position.segment = taker.Number<std::uint32_t>();
  (void)taker.Number<std::uint32_t>();
  index.covered.position.offset = taker.Number<std::uint64_t>();
  index.covered.sequence = taker.Number<std::uint64_t>();
  index.covered.previous = taker.Number<std::uint64_t>();
  index.last_record = {index.covered.position.segment, taker.Number<std::uint64_t>()};
  std::uint64_t count = taker.Number<std::uint64_t>();
  if (taker.left() % kIndexEntryBytes != 0 || count != taker.left() / kIndexEntryBytes) {
    return std::nullopt;
  }
  index.entries.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::optional<TrajectoryId> id = taker.Id();
    if (!id) return std::nullopt;
    Entry entry{*id, taker.Hash(), {}, 0};
    entry.position.segment = taker.Number<std::uint32_t>();
    entry.number = taker.Number<std::uint32_t>();
    entry.position.offset = taker.Number<std::uint64_t>();
    index.entries.push_back(entry);
  }
  return index;
}

Result<Index> LoadIndex(const std::filesystem::path& folder) {
  Index index;
  Result<std::string> bytes = ReadFile(folder / kIndexName);
  if (bytes.ok()) {
    std::optional<Index> stored = DecodeIndex(*bytes);
    if (stored && FitsLog(folder, *stored)) index = *std::move(stored);
  }
  auto add = [&](const LogRecord& record) -> Status {
    auto where = [&] {
      return folder.string() + ": log record " + std::to_string(record.sequence);
    };
    if (record.kind != kBlockKind) {
      return DataLoss(where() + ": kind " + std::to_string(record.kind) + " is no block");
    }
    std::string storage;
    Result<std::vector<BlockRecord>> block = DecodeBlock(record.payload, &storage);
    if (!block.ok()) return block.status().WithContext(where());
    std::uint32_t number = 0;
    for (const BlockRecord& stored : *block) {
      index.entries.push_back({stored.id, stored.content_hash, record.position, number++});
    }
    index.last_record = record.position;
    index.covered = LogCursor::After(record);
    return Status::Ok();
  };
  LogCursor from = index.covered;
  THRESHER_RETURN_IF_ERROR(ReadRecordLogFrom(folder, from, add));
  return index;
}

}  // namespace thresher::trajectory_store
