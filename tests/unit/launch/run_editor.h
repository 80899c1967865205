#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "common/base/status.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"

namespace thresher::launch {

// Changes the records of a run and writes them anew with right checksums and indexes, as somebody
// would who wants to hide it.

inline Result<std::vector<wire::JournalRecord>> LoadJournal(const std::filesystem::path& run) {
  std::vector<wire::JournalRecord> records;
  THRESHER_RETURN_IF_ERROR(ReadRecordLog(run / "journal", [&](const LogRecord& logged) -> Status {
    THRESHER_ASSIGN_OR_RETURN(auto record, wire::DecodeJournalRecord(logged.payload));
    records.push_back(std::move(record));
    return Status::Ok();
  }));
  return records;
}

inline Status SaveJournal(const std::filesystem::path& run,
                          const std::vector<wire::JournalRecord>& records) {
  std::filesystem::remove_all(run / "journal");
  THRESHER_ASSIGN_OR_RETURN(auto writer, RecordLogWriter::Open(run / "journal", {}));
  for (const auto& record : records) {
    auto kind = static_cast<std::uint32_t>(record.index());
    auto position = writer.Append(kind, wire::EncodeJournalRecord(record));
    if (!position.ok()) return position.status();
  }
  return writer.Flush(false);
}

inline Result<std::vector<StoredRecord>> LoadStore(const std::filesystem::path& run) {
  THRESHER_ASSIGN_OR_RETURN(auto reader, TrajectoryStoreReader::Open(run / "trajectories"));
  std::vector<StoredRecord> records;
  THRESHER_RETURN_IF_ERROR(reader->ReadAll([&](const auto& entry, std::string_view bytes) {
    records.push_back({entry.id, entry.content_hash, std::string(bytes)});
    return Status::Ok();
  }));
  return records;
}

inline Status SaveStore(const std::filesystem::path& run,
                        const std::vector<StoredRecord>& records) {
  constexpr std::size_t kBlock = 64;
  std::filesystem::remove_all(run / "trajectories");
  THRESHER_ASSIGN_OR_RETURN(auto writer, TrajectoryStoreWriter::Open(run / "trajectories", {}));
  for (std::size_t i = 0; i < records.size(); i += kBlock) {
    auto begin = records.begin() + static_cast<std::ptrdiff_t>(i);
    auto end = records.begin() + static_cast<std::ptrdiff_t>(std::min(i + kBlock, records.size()));
    THRESHER_RETURN_IF_ERROR(writer->AppendBlock({begin, end}).status());
  }
  return writer->WriteIndex();
}

// Replaces the trajectory by what `edit` makes of it; its stored content hash is computed anew.
inline Status EditTrajectory(StoredRecord& record, const std::function<void(Trajectory&)>& edit) {
  THRESHER_ASSIGN_OR_RETURN(Trajectory trajectory, wire::DecodeTrajectory(record.bytes));
  edit(trajectory);
  record.id = trajectory.id;
  record.content_hash = trajectory.ContentHash();
  record.bytes = wire::EncodeTrajectory(trajectory);
  return Status::Ok();
}

}  // namespace thresher::launch
