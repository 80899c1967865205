#include "broker/recovery.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <unordered_map>

#include "broker/snapshot.h"
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

// The newest snapshot that is whole; nothing when there is none. Those that are not are told of.
std::optional<Snapshot> NewestSnapshot(const std::filesystem::path& folder, const Plan& plan,
                                       std::vector<std::string>& warnings) {
  const std::vector<SnapshotFile> files = ListSnapshots(folder);
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    Result<std::string> bytes = ReadFile(file->path);
    Result<Snapshot> snapshot = bytes.ok() ? DecodeSnapshot(*bytes, plan) : bytes.status();
    if (snapshot.ok()) return *std::move(snapshot);
    warnings.push_back("snapshot passed over: " + file->path.string() + ": " +
                       snapshot.status().message());
  }
  return std::nullopt;
}

// Records from `from` on, onto the state that stands for those before.
Status ReplayJournal(const std::filesystem::path& folder, const LogCursor& from,
                     Recovered& recovered) {
  THRESHER_ASSIGN_OR_RETURN(const LogCursor begin, LogBegin(folder));
  if (from == LogCursor() && begin.sequence > 0) {
    return DataLoss(folder.string() + ": the records before " + std::to_string(begin.sequence) +
                    " were deleted (journal.keep_bytes), and no snapshot is whole");
  }
  return ReadRecordLogFrom(
      folder, from,
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

// Samples that are accepted or batched and not yet part of a committed step, with what they hold.
std::vector<wire::BatchEntry> OpenTraining(const RunState& state) {
  std::vector<wire::BatchEntry> live;
  for (const auto& [key, unit] : state.groups().units()) {
    if (key.evaluation) continue;
    state.groups().ForEach(key, [&](const TrajectoryId& id, const Slot& slot) {
      if (slot.state == Slot::State::kAccepted || slot.state == Slot::State::kBatched) {
        live.push_back({id, slot.content_hash});
      }
    });
  }
  return live;
}

// Samples of the steps that a learner commits again when it starts from the durable checkpoint.
std::vector<wire::BatchEntry> TrainedSinceCheckpoint(const RunState& state) {
  std::vector<wire::BatchEntry> trained;
  for (std::uint32_t step = state.durable_steps(); step < state.committed_steps(); ++step) {
    const wire::BatchComposed* batch = state.Batch(step);
    if (batch == nullptr) continue;
    for (const TrajectoryId& id : batch->ids) {
      const std::optional<Dedup::First> first = state.dedup().Find(id);
      if (first) trained.push_back({id, first->content_hash});
    }
  }
  return trained;
}

// An accepted trajectory that is still needed lies in the store as it was accepted, or is lost;
// `behind` knows those that lie behind the place where the state's records of the store begin.
// What was trained since the checkpoint and may be lost is missed by whoever asks for it: mostly
// nobody does.
Status CheckStored(const std::filesystem::path& folder, const TrajectoryStoreReader* reader,
                   const std::unordered_map<TrajectoryId, TrajectoryStoreReader::Entry>& behind,
                   bool may_be_lost, Recovered& recovered) {
  std::vector<wire::BatchEntry> needed = OpenTraining(recovered.state);
  if (!may_be_lost) {
    const std::vector<wire::BatchEntry> trained = TrainedSinceCheckpoint(recovered.state);
    needed.insert(needed.end(), trained.begin(), trained.end());
  }
  for (const auto& [id, content_hash] : needed) {
    auto found = behind.find(id);
    TrajectoryStoreReader::Entry stored;
    if (found != behind.end()) {
      stored = found->second;
    } else {
      Result<TrajectoryStoreReader::Entry> entry =
          reader == nullptr ? NotFound("no store") : reader->Find(id);
      const bool missing = entry.status().code() == StatusCode::kNotFound;
      if (missing && may_be_lost) {
        recovered.lost.push_back(id);
        continue;
      }
      if (missing) {
        return DataLoss(folder.string() + ": " + id.ToString() + " was accepted and is not stored");
      }
      if (!entry.ok()) return entry.status();
      stored = *entry;
    }
    if (stored.content_hash != content_hash) {
      return DataLoss(folder.string() + ": " + id.ToString() +
                      " differs from what the journal accepted");
    }
    recovered.places.push_back(stored);
  }
  return Status::Ok();
}

// Reads what lies behind `from`: what the journal does not know there is an orphan.
Status ReadStore(const std::filesystem::path& folder, LogPosition from, bool may_be_lost,
                 Recovered& recovered) {
  std::unordered_map<TrajectoryId, TrajectoryStoreReader::Entry> behind;
  std::unique_ptr<TrajectoryStoreReader> reader;
  if (HasSegments(folder)) {
    THRESHER_ASSIGN_OR_RETURN(reader, TrajectoryStoreReader::Open(folder));
    auto visit = [&](const TrajectoryStoreReader::Entry& entry) -> Status {
      ++recovered.stored;
      behind[entry.id] = entry;
      const Dedup& dedup = recovered.state.dedup();
      std::optional<Dedup::First> accepted = dedup.Find(entry.id);
      if (accepted && accepted->content_hash != entry.content_hash) {
        return DataLoss(folder.string() + ": " + entry.id.ToString() +
                        " differs from what the journal accepted");
      }
      if (accepted || dedup.Forgotten(entry.id)) return Status::Ok();
      THRESHER_ASSIGN_OR_RETURN(std::string bytes, reader->Read(entry));
      THRESHER_ASSIGN_OR_RETURN(Trajectory trajectory, wire::DecodeTrajectory(bytes));
      recovered.orphans.push_back(std::move(trajectory));
      return Status::Ok();
    };
    THRESHER_RETURN_IF_ERROR(reader->ForEach(visit, from));
  }
  return CheckStored(folder, reader.get(), behind, may_be_lost, recovered);
}

}  // namespace

Result<Recovered> Recover(const std::filesystem::path& run, const Plan& plan,
                          const RecoverOptions& options) {
  Recovered recovered{RunState(plan)};
  LogCursor journal, store;
  std::optional<Snapshot> snapshot;
  if (options.use_snapshots) {
    snapshot = NewestSnapshot(run / "journal", plan, recovered.warnings);
  }
  if (snapshot) {
    journal = snapshot->journal;
    store = snapshot->store;
    recovered.state = std::move(snapshot->state);
  }
  if (HasSegments(run / "journal")) {
    THRESHER_RETURN_IF_ERROR(ReplayJournal(run / "journal", journal, recovered));
  } else if (snapshot) {
    return DataLoss((run / "journal").string() + ": a snapshot, and no records");
  }
  THRESHER_RETURN_IF_ERROR(recovered.state.ledger().Check(recovered.state.groups().CountHeld()));
  THRESHER_RETURN_IF_ERROR(
      ReadStore(run / "trajectories", store.position, options.bytes_may_be_lost, recovered));
  return recovered;
}

}  // namespace thresher::broker
