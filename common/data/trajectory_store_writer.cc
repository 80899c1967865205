#include <algorithm>

#include "common/base/hash.h"
#include "common/data/files.h"
#include "common/data/trajectory_index.h"
#include "common/data/trajectory_store_format.h"

namespace thresher {
namespace {

using trajectory_store::EncodeIndex;
using trajectory_store::IndexPath;
using trajectory_store::SegmentEntries;

// Of a segment: what is known of them lies in memory until its index is written.
constexpr std::size_t kMostEntries = 1 << 16;

class Writer : public TrajectoryStoreWriter {
 public:
  Writer(std::filesystem::path folder, RecordLogWriter log, SegmentEntries last,
         Compression compression)
      : folder_(std::move(folder)),
        log_(std::move(log)),
        last_(std::move(last)),
        compression_(compression) {}

  Result<LogPosition> AppendBlock(const std::vector<StoredRecord>& records) override {
    if (records.empty()) return log_.end().position;
    for (const StoredRecord& record : records) {
      THRESHER_CHECK(record.id.InRange(), "a trajectory stored under an id out of range");
    }
    if (last_.entries.size() >= kMostEntries) log_.EndSegment();
    THRESHER_ASSIGN_OR_RETURN(const LogPosition position, AppendEncoded(records));
    if (position.segment != last_.segment) {
      if (!last_.entries.empty()) complete_.push_back(std::move(last_));
      last_ = {position.segment, 0, 0, {}};
    }
    last_.bytes = log_.end().position.offset;
    last_.checksum = log_.end().previous;
    std::uint32_t number = 0;
    for (const StoredRecord& record : records) {
      last_.entries.push_back({record.id, record.content_hash, position, number++});
    }
    return position;
  }

  Status Flush(bool sync) override {
    THRESHER_RETURN_IF_ERROR(log_.Flush(sync));
    // An index that cannot be written costs its readers time.
    for (const SegmentEntries& segment : complete_) (void)WriteIndexOf(segment).ok();
    complete_.clear();
    return Status::Ok();
  }

  Status WriteIndex() override {
    THRESHER_RETURN_IF_ERROR(Flush(true));
    return last_.entries.empty() ? Status::Ok() : WriteIndexOf(last_);
  }

  LogCursor end() const override { return log_.end(); }
  std::uint64_t repaired_bytes() const override { return log_.repaired_bytes(); }

 private:
  Result<LogPosition> AppendEncoded(const std::vector<StoredRecord>& records) {
    if (compression_ == Compression::kNone) {
      std::string heads;
      THRESHER_ASSIGN_OR_RETURN(const auto pieces, trajectory_store::PlainPieces(records, &heads));
      return log_.Append(static_cast<std::uint32_t>(BlockKind::kPlain), pieces);
    }
    THRESHER_ASSIGN_OR_RETURN(const trajectory_store::EncodedBlock block,
                              trajectory_store::EncodeBlock(records, compression_));
    return log_.Append(static_cast<std::uint32_t>(block.kind), block.payload);
  }
  Status WriteIndexOf(const SegmentEntries& segment) const {
    return WriteFileAtomic(IndexPath(folder_, segment.segment), EncodeIndex(segment));
  }

  std::filesystem::path folder_;
  RecordLogWriter log_;
  SegmentEntries last_;                   // of the segment that is written
  std::vector<SegmentEntries> complete_;  // whose index is to be written
  Compression compression_;
};

}  // namespace

Result<std::unique_ptr<TrajectoryStoreWriter>> TrajectoryStoreWriter::Open(
    const std::filesystem::path& folder, const RecordLogOptions& options, Compression compression) {
  // The log first: it repairs the tail that the index must not cover.
  THRESHER_ASSIGN_OR_RETURN(RecordLogWriter log, RecordLogWriter::Open(folder, options));
  SegmentEntries last;
  if (const std::uint32_t segment = log.end().position.segment; segment > 0) {
    THRESHER_ASSIGN_OR_RETURN(last, trajectory_store::ScanSegment(folder, segment));
  }
  return std::unique_ptr<TrajectoryStoreWriter>(
      std::make_unique<Writer>(folder, std::move(log), std::move(last), compression));
}

Result<std::uint32_t> FirstSegmentHolding(const std::filesystem::path& folder,
                                          std::span<const TrajectoryId> ids, std::uint32_t end) {
  THRESHER_ASSIGN_OR_RETURN(const auto segments, ListLog(folder));
  for (const LogSegment& segment : segments) {
    if (segment.number >= end) break;
    THRESHER_ASSIGN_OR_RETURN(const auto index,
                              trajectory_store::SegmentIndex::Load(folder, segment.number));
    const auto holds = [&](const TrajectoryId& id) { return index.view().Find(id).has_value(); };
    if (std::ranges::any_of(ids, holds)) return segment.number;
  }
  return end;
}

Status DeleteTrajectoriesBefore(const std::filesystem::path& folder, std::uint32_t segment) {
  THRESHER_ASSIGN_OR_RETURN(const auto segments, ListLog(folder));
  THRESHER_RETURN_IF_ERROR(DeleteSegmentsBefore(folder, segment));
  for (const LogSegment& old : segments) {
    if (old.number >= segment) break;
    const Status removed = Files().Remove(IndexPath(folder, old.number));
    if (!removed.ok() && removed.code() != StatusCode::kNotFound) return removed;
  }
  return Status::Ok();
}

}  // namespace thresher
