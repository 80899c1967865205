#include "broker/recovery.h"

#include <algorithm>
#include <unordered_set>

#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"

namespace thresher::broker {
namespace {

bool HasSegments(const std::filesystem::path& folder) {
  const std::vector<std::string> names = NamesIn(folder);
  return std::ranges::any_of(
      names, [](const std::filesystem::path& name) { return name.extension() == ".log"; });
}

Status ReplayJournal(const std::filesystem::path& folder, Recovered& recovered) {
  if (!HasSegments(folder)) return Status::Ok();
  return ReadRecordLog(
      folder,
      [&](const LogRecord& logged) -> Status {
        std::string where = folder.string() + ": record " + std::to_string(logged.sequence);
        Result<wire::JournalRecord> record = wire::DecodeJournalRecord(logged.payload);
        if (!record.ok()) return record.status().WithContext(where);
        Status applied = recovered.state.Apply(*record);
        if (!applied.ok()) return applied.WithContext(where);
        ++recovered.records;
        return Status::Ok();
      },
      &recovered.torn_bytes);
}

// Samples that are accepted or batched and not yet part of a committed step.
std::vector<TrajectoryId> LiveTraining(const RunState& state) {
  std::vector<TrajectoryId> live;
  for (const auto& [key, group] : state.groups().groups()) {
    if (group.unit.evaluation) continue;
    for (std::uint32_t s = 0; s < group.slots.size(); ++s) {
      Slot::State slot = group.slots[s].state;
      if (slot == Slot::State::kAccepted || slot == Slot::State::kBatched) {
        live.push_back({key.stream, key.island, key.item, s});
      }
    }
  }
  return live;
}

Status ReadStore(const std::filesystem::path& folder, Recovered& recovered) {
  std::unordered_set<TrajectoryId> stored;
  if (HasSegments(folder)) {
    THRESHER_ASSIGN_OR_RETURN(auto reader, TrajectoryStoreReader::Open(folder));
    for (const TrajectoryStoreReader::Entry& entry : reader->entries()) {
      stored.insert(entry.id);
      std::optional<Dedup::First> accepted = recovered.state.dedup().Find(entry.id);
      if (accepted && accepted->content_hash != entry.content_hash) {
        return DataLoss(folder.string() + ": " + entry.id.ToString() +
                        " differs from what the journal accepted");
      }
      if (accepted) continue;
      THRESHER_ASSIGN_OR_RETURN(std::string bytes, reader->Read(entry));
      THRESHER_ASSIGN_OR_RETURN(Trajectory trajectory, wire::DecodeTrajectory(bytes));
      recovered.orphans.push_back(std::move(trajectory));
    }
  }
  for (const TrajectoryId& id : LiveTraining(recovered.state)) {
    if (stored.contains(id)) continue;
    return DataLoss(folder.string() + ": " + id.ToString() + " was accepted and is not stored");
  }
  return Status::Ok();
}

}  // namespace

Result<Recovered> Recover(const std::filesystem::path& run, const Plan& plan) {
  Recovered recovered{RunState(plan), 0, 0, {}};
  THRESHER_RETURN_IF_ERROR(ReplayJournal(run / "journal", recovered));
  THRESHER_RETURN_IF_ERROR(recovered.state.ledger().Check(recovered.state.groups().CountHeld()));
  THRESHER_RETURN_IF_ERROR(ReadStore(run / "trajectories", recovered));
  return recovered;
}

}  // namespace thresher::broker
