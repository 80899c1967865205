#include <map>

#include "common/data/trajectory_index.h"
#include "common/data/trajectory_store_format.h"

namespace thresher {
namespace {

using trajectory_store::BlockRecord;
using trajectory_store::IndexView;
using trajectory_store::SegmentIndex;

using Entry = TrajectoryStoreReader::Entry;

std::string Where(const std::filesystem::path& folder, LogPosition position) {
  return folder.string() + ": segment " + std::to_string(position.segment) + ", offset " +
         std::to_string(position.offset);
}

// A block that was read, and where its bytes lie; of one at a time.
struct Block {
  std::string payload, storage;
  std::vector<BlockRecord> records;
};

Status ReadBlock(const std::filesystem::path& folder, LogPosition position, Block* block) {
  THRESHER_ASSIGN_OR_RETURN(const LogRecord record,
                            ReadLogRecordAt(folder, position, &block->payload));
  auto records = trajectory_store::DecodeBlock(record.kind, record.payload, &block->storage);
  if (!records.ok()) return records.status().WithContext(Where(folder, position));
  block->records = *std::move(records);
  return Status::Ok();
}

// The entry's bytes; the block must hold what the entry says.
Result<std::string_view> Pick(const std::filesystem::path& folder, const Block& block,
                              const Entry& entry) {
  const std::vector<BlockRecord>& records = block.records;
  if (entry.number >= records.size() || records[entry.number].id != entry.id ||
      records[entry.number].content_hash != entry.content_hash) {
    return DataLoss(Where(folder, entry.position) + ": number " + std::to_string(entry.number) +
                    " is not trajectory " + entry.id.ToString());
  }
  return records[entry.number].bytes;
}

class Reader : public TrajectoryStoreReader {
 public:
  Reader(std::filesystem::path folder, const std::vector<LogSegment>& segments, bool deleted_some)
      : folder_(std::move(folder)), deleted_some_(deleted_some) {
    for (const LogSegment& segment : segments) indexes_[segment.number];
  }

  // The last segment, which has no index while it is written.
  Status LoadLast() {
    if (indexes_.empty()) return Status::Ok();
    return IndexOf(indexes_.rbegin()->first).status();
  }

  Status ForEach(const Visit& visit, LogPosition from) const override {
    for (auto it = indexes_.lower_bound(from.segment); it != indexes_.end(); ++it) {
      THRESHER_ASSIGN_OR_RETURN(const IndexView* index, IndexOf(it->first));
      for (std::uint64_t i = 0; i < index->size(); ++i) {
        const Entry entry = index->at(i);
        if (entry.position < from) continue;
        THRESHER_RETURN_IF_ERROR(visit(entry));
      }
    }
    return Status::Ok();
  }

  // What is asked for was mostly stored lately.
  Result<Entry> Find(const TrajectoryId& id) const override {
    for (auto it = indexes_.rbegin(); it != indexes_.rend(); ++it) {
      THRESHER_ASSIGN_OR_RETURN(const IndexView* index, IndexOf(it->first));
      if (std::optional<Entry> found = index->Find(id)) return *found;
    }
    return NotFound(folder_.string() + ": no trajectory " + id.ToString() + Oldest());
  }

  Result<std::string> Read(const Entry& entry) const override {
    Block block;
    THRESHER_RETURN_IF_ERROR(ReadBlock(folder_, entry.position, &block));
    THRESHER_ASSIGN_OR_RETURN(std::string_view bytes, Pick(folder_, block, entry));
    return std::string(bytes);
  }

  Status ReadAll(
      const std::function<Status(const Entry&, std::string_view)>& callback) const override {
    Block block;
    LogPosition held;
    return ForEach(
        [&](const Entry& entry) -> Status {
          if (entry.position != held) {
            THRESHER_RETURN_IF_ERROR(ReadBlock(folder_, entry.position, &block));
            held = entry.position;
          }
          THRESHER_ASSIGN_OR_RETURN(std::string_view bytes, Pick(folder_, block, entry));
          return callback(entry, bytes);
        },
        {});
  }

  bool deleted_some() const override { return deleted_some_; }

 private:
  // Loaded when it is first needed.
  Result<const IndexView*> IndexOf(std::uint32_t segment) const {
    std::optional<SegmentIndex>& index = indexes_.at(segment);
    if (!index) {
      THRESHER_ASSIGN_OR_RETURN(index, SegmentIndex::Load(folder_, segment));
    }
    return &index->view();
  }

  // Why an older one may be missing.
  std::string Oldest() const {
    if (!deleted_some_) return "";
    std::string oldest = "none";
    const Status enough = Cancelled("enough");
    (void)ForEach(
        [&](const Entry& entry) {
          oldest = entry.id.ToString();
          return enough;
        },
        {})
        .ok();
    return "; older ones were deleted (trajectories.keep_bytes), the oldest kept is " + oldest;
  }

  std::filesystem::path folder_;
  bool deleted_some_;
  mutable std::map<std::uint32_t, std::optional<SegmentIndex>> indexes_;
};

}  // namespace

Result<std::vector<TrajectoryStoreReader::Entry>> TrajectoryStoreReader::Entries() const {
  std::vector<Entry> entries;
  THRESHER_RETURN_IF_ERROR(ForEach([&](const Entry& entry) {
    entries.push_back(entry);
    return Status::Ok();
  }));
  return entries;
}

Result<std::vector<std::string>> ReadTrajectories(
    const std::filesystem::path& folder, const std::vector<TrajectoryStoreReader::Entry>& entries) {
  std::map<LogPosition, std::vector<std::size_t>> blocks;
  for (std::size_t i = 0; i < entries.size(); ++i) blocks[entries[i].position].push_back(i);
  std::vector<std::string> read(entries.size());
  Block block;
  for (const auto& [position, wanted] : blocks) {
    THRESHER_RETURN_IF_ERROR(ReadBlock(folder, position, &block));
    for (std::size_t i : wanted) {
      THRESHER_ASSIGN_OR_RETURN(read[i], Pick(folder, block, entries[i]));
    }
  }
  return read;
}

Result<std::unique_ptr<TrajectoryStoreReader>> TrajectoryStoreReader::Open(
    const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(const LogCursor begin, LogBegin(folder));
  THRESHER_ASSIGN_OR_RETURN(const auto segments, ListLog(folder));
  auto reader = std::make_unique<Reader>(folder, segments, begin.sequence > 0);
  THRESHER_RETURN_IF_ERROR(reader->LoadLast());
  return std::unique_ptr<TrajectoryStoreReader>(std::move(reader));
}

}  // namespace thresher
