#include "common/data/trajectory_store_format.h"

#include <zstd.h>

#include <utility>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/files.h"

namespace thresher::trajectory_store {
namespace {

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

}  // namespace thresher::trajectory_store
