#include "broker/journal.h"

#include <utility>

#include "broker/partial_log.h"
#include "common/data/files.h"

namespace thresher::broker {
namespace {

constexpr std::size_t kPreallocateBytes = 4 << 20;

RecordLogOptions OptionsOf(const char* log, const JournalConfig& config, FaultPlan* faults) {
  RecordLogOptions options;
  options.segment_bytes = static_cast<std::size_t>(config.segment_bytes);
  options.preallocate_bytes = kPreallocateBytes;
  if (faults == nullptr) return options;
  options.reached = [faults, log](LogPoint point) {
    faults->Reached(std::string(log) + LogPointName(point));
  };
  return options;
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::Open(const std::filesystem::path& run,
                                               const JournalConfig& config, FaultPlan* faults) {
  THRESHER_RETURN_IF_ERROR(CreateDirectories(run / "journal"));
  THRESHER_RETURN_IF_ERROR(CreateDirectories(run / "trajectories"));
  THRESHER_ASSIGN_OR_RETURN(
      RecordLogWriter log,
      RecordLogWriter::Open(run / "journal", OptionsOf("journal_", config, faults)));
  THRESHER_ASSIGN_OR_RETURN(
      auto store, TrajectoryStoreWriter::Open(
                      run / "trajectories", OptionsOf("store_", config, faults),
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

Status Journal::OpenPartials(const std::filesystem::path& run, const JournalConfig& config,
                             FaultPlan* faults) {
  THRESHER_RETURN_IF_ERROR(CreateDirectories(PartialsFolder(run)));
  THRESHER_ASSIGN_OR_RETURN(
      RecordLogWriter log,
      RecordLogWriter::Open(PartialsFolder(run), OptionsOf("partials_", config, faults)));
  partials_.emplace(std::move(log));
  return Status::Ok();
}

void Journal::Keep(const TrajectoryId& id, std::uint64_t number, SharedBytes bytes) {
  THRESHER_CHECK(keeps_partials(), "a prefix, and nowhere to write it");
  next_.prefix_bytes += bytes.size();
  if (!off_) next_.bytes += bytes.size();
  next_.prefixes.push_back({id, number, std::move(bytes)});
}

void Journal::KeepTally(std::string tally) {
  THRESHER_CHECK(keeps_partials(), "a tally, and nowhere to write it");
  next_.tally = std::move(tally);
}

void Journal::Seal() {
  THRESHER_CHECK(!std::exchange(sealed_, true), "a sealed group is not written yet");
  std::swap(group_, next_);  // of the one before there is the memory, to be used again
}

Status Journal::Write() {
  if (!off_) THRESHER_RETURN_IF_ERROR(WriteBlock());
  THRESHER_RETURN_IF_ERROR(WriteRecords());
  THRESHER_RETURN_IF_ERROR(WritePartials());
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

// Durable: a tally is synced, too, though nobody waits for it. What a later sync fails to write is
// written again, and that must be everything since the one before.
Status Journal::WritePartials() {
  for (const Prefix& prefix : group_.prefixes) {
    const auto kind = static_cast<std::uint32_t>(PartialKind::kPrefix);
    Result<LogPosition> place = partials_->Append(kind, prefix.bytes);
    THRESHER_CHECK(place.ok(), place.status().ToString());
    partial_places_.push_back({prefix.id, prefix.number, *place});
    partials_unflushed_ = true;
  }
  group_.prefixes.clear();
  if (!group_.tally.empty()) {
    const auto kind = static_cast<std::uint32_t>(PartialKind::kTally);
    Result<LogPosition> place = partials_->Append(kind, group_.tally);
    THRESHER_CHECK(place.ok(), place.status().ToString());
    partials_unflushed_ = true;
    tally_segment_ = place->segment;
    group_.tally.clear();
  }
  if (!partials_unflushed_) return Status::Ok();
  THRESHER_RETURN_IF_ERROR(partials_->Flush(durable_));
  partials_unflushed_ = false;
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
  group_.bytes = group_.aside_bytes = group_.prefix_bytes = 0;
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
  if (partials_) THRESHER_RETURN_IF_ERROR(partials_->Flush(true));
  return log_.Flush(true);
}

}  // namespace thresher::broker
