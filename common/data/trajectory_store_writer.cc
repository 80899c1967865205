#include "common/base/hash.h"
#include "common/data/files.h"
#include "common/data/trajectory_store_format.h"

namespace thresher {
namespace {

using trajectory_store::Index;

class Writer : public TrajectoryStoreWriter {
 public:
  Writer(std::filesystem::path folder, RecordLogWriter log, Index index)
      : folder_(std::move(folder)), log_(std::move(log)), index_(std::move(index)) {}

  Status AppendBlock(const std::vector<StoredRecord>& records) override {
    if (records.empty()) return Status::Ok();
    for (const StoredRecord& record : records) {
      THRESHER_CHECK(record.id.InRange(), "a trajectory stored under an id out of range");
    }
    THRESHER_ASSIGN_OR_RETURN(std::string payload, trajectory_store::EncodeBlock(records));
    THRESHER_ASSIGN_OR_RETURN(index_.last_record, log_.Append(kBlockKind, payload));
    index_.covered = log_.end();
    std::uint32_t number = 0;
    for (const StoredRecord& record : records) {
      index_.entries.push_back({record.id, record.content_hash, index_.last_record, number++});
    }
    return Status::Ok();
  }

  Status Flush(bool sync) override { return log_.Flush(sync); }

  Status WriteIndex() override {
    THRESHER_RETURN_IF_ERROR(log_.Flush(true));
    return WriteFileAtomic(folder_ / trajectory_store::kIndexName,
                           trajectory_store::EncodeIndex(index_));
  }

  std::uint64_t record_count() const override { return index_.entries.size(); }
  std::uint64_t repaired_bytes() const override { return log_.repaired_bytes(); }

 private:
  std::filesystem::path folder_;
  RecordLogWriter log_;
  Index index_;
};

}  // namespace

Result<std::unique_ptr<TrajectoryStoreWriter>> TrajectoryStoreWriter::Open(
    const std::filesystem::path& folder, const RecordLogOptions& options) {
  // The log first: it repairs the tail that the index must not cover.
  THRESHER_ASSIGN_OR_RETURN(RecordLogWriter log, RecordLogWriter::Open(folder, options));
  THRESHER_ASSIGN_OR_RETURN(Index index, trajectory_store::LoadIndex(folder));
  return std::unique_ptr<TrajectoryStoreWriter>(
      std::make_unique<Writer>(folder, std::move(log), std::move(index)));
}

}  // namespace thresher
