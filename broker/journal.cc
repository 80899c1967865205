#include "broker/journal.h"

#include <utility>

#include "common/data/files.h"

namespace thresher::broker {
namespace {

constexpr std::size_t kPreallocateBytes = 4 << 20;

}  // namespace

Result<std::unique_ptr<Journal>> Journal::Open(const std::filesystem::path& run,
                                               const JournalConfig& config, FaultPlan* faults) {
  auto options_of = [&](const char* log) {
    RecordLogOptions options;
    options.segment_bytes = static_cast<std::size_t>(config.segment_bytes);
    options.preallocate_bytes = kPreallocateBytes;
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
      auto store, TrajectoryStoreWriter::Open(
                      run / "trajectories", options_of("store_"),
                      config.compression == "none" ? Compression::kNone : Compression::kZstd));
  return std::unique_ptr<Journal>(new Journal(std::move(log), std::move(store), config));
}

void Journal::Record(const wire::JournalRecord& record) {
  const std::size_t begin = next_.encoded.size();
  wire::AppendJournalRecord(next_.encoded, record);
  const std::size_t bytes = next_.encoded.size() - begin;
  next_.records.push_back({static_cast<std::uint32_t>(record.index()), bytes});
  next_.bytes += bytes;
}

void Journal::Store(StoredRecord record) {
  const std::size_t bytes = record.bytes.size();
  if (off_ && !next_.block.empty() && next_.aside_bytes + bytes > most_aside_bytes_) {
    ++not_stored_;
    return;
  }
  (off_ ? next_.aside_bytes : next_.bytes) += bytes;
  next_.block.push_back(std::move(record));
}

void Journal::Seal() {
  THRESHER_CHECK(!std::exchange(sealed_, true), "a sealed group is not written yet");
  std::swap(group_, next_);  // of the one before there is the memory, to be used again
}

Status Journal::Write() {
  if (!off_) THRESHER_RETURN_IF_ERROR(WriteBlock());
  THRESHER_RETURN_IF_ERROR(WriteRecords());
  if (off_) WriteAside();
  return Status::Ok();
}

Status Journal::WriteBlock() {
  unflushed_ |= !group_.block.empty();
  THRESHER_RETURN_IF_ERROR(AppendBlock());
  return unflushed_ ? store_->Flush(durable_) : Status::Ok();
}

Status Journal::AppendBlock() {
  if (group_.block.empty()) return Status::Ok();
  THRESHER_ASSIGN_OR_RETURN(const LogPosition position, store_->AppendBlock(group_.block));
  for (std::uint32_t i = 0; i < group_.block.size(); ++i) {
    const StoredRecord& record = group_.block[i];
    places_.push_back({record.id, record.content_hash, position, i});
  }
  group_.block.clear();
  return Status::Ok();
}

Status Journal::WriteRecords() {
  std::string_view encoded = group_.encoded;
  for (const Pending& pending : group_.records) {
    Result<LogPosition> position = log_.Append(pending.kind, encoded.substr(0, pending.bytes));
    THRESHER_CHECK(position.ok(), position.status().ToString());
    encoded.remove_prefix(pending.bytes);
    unflushed_ = true;
  }
  group_.records.clear();
  group_.encoded.clear();
  THRESHER_RETURN_IF_ERROR(log_.Flush(durable_));
  unflushed_ = false;
  return Status::Ok();
}

// What the store took and could not write it keeps; nothing is added to that.
void Journal::WriteAside() {
  if (aside_unflushed_) aside_unflushed_ = !store_->Flush(/*sync=*/false).ok();
  if (aside_unflushed_ || !AppendBlock().ok()) not_stored_ += group_.block.size();
  group_.block.clear();
  aside_unflushed_ |= !store_->Flush(/*sync=*/false).ok();
}

std::vector<TrajectoryStoreReader::Entry> Journal::Finish() {
  sealed_ = false;
  group_.bytes = group_.aside_bytes = 0;
  ++commits_;
  if (aside_unflushed_) return {};  // they are in no file yet
  return std::exchange(places_, {});
}

Status Journal::Commit() {
  while (dirty()) {
    if (!sealed_) Seal();
    THRESHER_RETURN_IF_ERROR(Write());
    Finish();
  }
  return Status::Ok();
}

Status Journal::Sync() {
  THRESHER_RETURN_IF_ERROR(store_->Flush(true));
  return log_.Flush(true);
}

}  // namespace thresher::broker
