#include "common/data/trajectory_store_format.h"

namespace thresher {
namespace {

using trajectory_store::BlockRecord;

class Reader : public TrajectoryStoreReader {
 public:
  Reader(std::filesystem::path folder, std::vector<Entry> entries)
      : folder_(std::move(folder)), entries_(std::move(entries)) {
    by_id_.reserve(entries_.size());
    for (std::size_t i = 0; i < entries_.size(); ++i) by_id_.try_emplace(entries_[i].id, i);
  }

  const std::vector<Entry>& entries() const override { return entries_; }

  Result<Entry> Find(const TrajectoryId& id) const override {
    auto found = by_id_.find(id);
    if (found == by_id_.end()) {
      return NotFound(folder_.string() + ": no trajectory " + id.ToString());
    }
    return entries_[found->second];
  }

  Result<std::string> Read(const Entry& entry) const override {
    std::string storage;
    THRESHER_ASSIGN_OR_RETURN(std::vector<BlockRecord> block, ReadBlock(entry.position, &storage));
    THRESHER_ASSIGN_OR_RETURN(std::string_view bytes, Pick(block, entry));
    return std::string(bytes);
  }

  Status ReadAll(
      const std::function<Status(const Entry&, std::string_view)>& callback) const override {
    std::string storage;
    std::vector<BlockRecord> block;
    LogPosition held;
    for (const Entry& entry : entries_) {
      if (entry.position != held) {
        THRESHER_ASSIGN_OR_RETURN(block, ReadBlock(entry.position, &storage));
        held = entry.position;
      }
      THRESHER_ASSIGN_OR_RETURN(std::string_view bytes, Pick(block, entry));
      THRESHER_RETURN_IF_ERROR(callback(entry, bytes));
    }
    return Status::Ok();
  }

 private:
  std::string Where(LogPosition position) const {
    return folder_.string() + ": segment " + std::to_string(position.segment) + ", offset " +
           std::to_string(position.offset);
  }

  Result<std::vector<BlockRecord>> ReadBlock(LogPosition position, std::string* storage) const {
    std::uint32_t kind = 0;
    THRESHER_ASSIGN_OR_RETURN(std::string payload, ReadRecordAt(folder_, position, &kind));
    if (kind != kBlockKind) return DataLoss(Where(position) + ": no block");
    Result<std::vector<BlockRecord>> block = trajectory_store::DecodeBlock(payload, storage);
    if (!block.ok()) return block.status().WithContext(Where(position));
    return block;
  }

  // The entry's bytes; the block must hold what the entry says.
  Result<std::string_view> Pick(const std::vector<BlockRecord>& block, const Entry& entry) const {
    if (entry.number >= block.size() || block[entry.number].id != entry.id ||
        block[entry.number].content_hash != entry.content_hash) {
      return DataLoss(Where(entry.position) + ": number " + std::to_string(entry.number) +
                      " is not trajectory " + entry.id.ToString());
    }
    return block[entry.number].bytes;
  }

  std::filesystem::path folder_;
  std::vector<Entry> entries_;
  std::unordered_map<TrajectoryId, std::size_t> by_id_;
};

}  // namespace

Result<std::unique_ptr<TrajectoryStoreReader>> TrajectoryStoreReader::Open(
    const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(trajectory_store::Index index, trajectory_store::LoadIndex(folder));
  return std::unique_ptr<TrajectoryStoreReader>(
      std::make_unique<Reader>(folder, std::move(index.entries)));
}

}  // namespace thresher
