#include "broker/journal.h"

#include "common/data/files.h"

namespace thresher::broker {

Result<std::unique_ptr<Journal>> Journal::Open(const std::filesystem::path& run,
                                               const JournalConfig& config, FaultPlan* faults) {
  auto options_of = [&](const char* log) {
    RecordLogOptions options;
    options.segment_bytes = static_cast<std::size_t>(config.segment_bytes);
    if (faults == nullptr) return options;
    options.reached = [faults, log](LogPoint point) {
      faults->Reached(std::string(log) + LogPointName(point));
    };
    return options;
  };
  THRESHER_RETURN_IF_ERROR(CreateDirectories(run / "journal"));
  THRESHER_RETURN_IF_ERROR(CreateDirectories(run / "trajectories"));
  THRESHER_ASSIGN_OR_RETURN(RecordLogWriter log,
                            RecordLogWriter::Open(run / "journal", options_of("journal_")));
  THRESHER_ASSIGN_OR_RETURN(
      auto store, TrajectoryStoreWriter::Open(run / "trajectories", options_of("store_")));
  return std::unique_ptr<Journal>(
      new Journal(std::move(log), std::move(store), config.mode == "durable"));
}

void Journal::Record(const wire::JournalRecord& record) {
  records_.push_back(
      {static_cast<std::uint32_t>(record.index()), wire::EncodeJournalRecord(record)});
  pending_bytes_ += records_.back().bytes.size();
}

void Journal::Store(StoredRecord record) {
  pending_bytes_ += record.bytes.size();
  block_.push_back(std::move(record));
}

Status Journal::Commit() {
  if (!dirty()) return Status::Ok();
  if (!block_.empty()) {
    THRESHER_RETURN_IF_ERROR(store_->AppendBlock(block_));
    block_.clear();
    unflushed_ = true;
  }
  if (unflushed_) THRESHER_RETURN_IF_ERROR(store_->Flush(durable_));
  for (const Pending& pending : records_) {
    Result<LogPosition> position = log_.Append(pending.kind, pending.bytes);
    THRESHER_CHECK(position.ok(), position.status().ToString());
    unflushed_ = true;
  }
  records_.clear();
  THRESHER_RETURN_IF_ERROR(log_.Flush(durable_));
  unflushed_ = false;
  pending_bytes_ = 0;
  ++commits_;
  return Status::Ok();
}

}  // namespace thresher::broker
