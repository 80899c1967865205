#include "broker/journal_keeper.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "broker/snapshot.h"
#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"

namespace thresher::broker {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kKept = 2;  // snapshots, should one be damaged
// A writer that starts may look into the last segment but one (record_log.h).
constexpr std::uint32_t kNewestSegments = 2;

std::uint64_t BytesOf(const std::vector<LogSegment>& segments) {
  std::uint64_t bytes = 0;
  for (const LogSegment& segment : segments) bytes += segment.bytes;
  return bytes;
}

// Archived first, then those a start uses: ascending.
std::vector<SnapshotFile> AllSnapshots(const fs::path& journal) {
  std::vector<SnapshotFile> all = ListSnapshots(journal / "archive");
  for (SnapshotFile& file : ListSnapshots(journal)) all.push_back(std::move(file));
  return all;
}

}  // namespace

JournalKeeper::Limits JournalKeeper::LimitsOf(const Config& config) {
  return {static_cast<std::uint64_t>(config.journal.snapshot_records), config.journal.keep_bytes,
          config.trajectories.keep_bytes};
}

JournalKeeper::JournalKeeper(fs::path run, const Limits& limits, FaultPlan* faults)
    : run_(std::move(run)), limits_(limits), faults_(faults) {
  const std::vector<SnapshotFile> files = ListSnapshots(run_ / "journal");
  if (!files.empty()) last_sequence_ = files.back().sequence;
}

bool JournalKeeper::Due(const Journal& journal, const RunState& state) const {
  const std::uint64_t since = journal.end().sequence - last_sequence_;
  // No larger than what it saves.
  const std::uint64_t live = state.dedup().remembered();
  return state.durable_steps() > durable_steps_ &&
         since >= std::max(limits_.snapshot_records, live);
}

void JournalKeeper::Seal(const Journal& journal, const RunState& state) {
  if (!std::exchange(known_, true)) durable_steps_ = state.durable_steps();
  sealed_.reset();
  if (!Due(journal, state)) return;
  sealed_ = Sealed{EncodeState(state), state.durable_steps(), {}};
  if (limits_.trajectories_bytes > 0) sealed_->remembered = state.dedup().Remembered();
}

Status JournalKeeper::Tidy(const LogCursor& journal_end, const LogCursor& store_end) {
  if (archive_before_ > 0) return ArchiveOne(journal_end);
  if (!std::exchange(trim_, false)) return Status::Ok();
  THRESHER_RETURN_IF_ERROR(DeleteJournal());
  return DeleteTrajectories(store_end);
}

Status JournalKeeper::TakeSnapshot(Journal& journal) {
  // Once it fails the state has gone on: another one is taken.
  const Sealed sealed = *std::exchange(sealed_, std::nullopt);
  // What it stands for must be on the disk before it, whatever the mode.
  THRESHER_RETURN_IF_ERROR(journal.Sync());
  const std::string bytes = EncodeSnapshot(journal.end(), journal.store_end(), sealed.bytes);
  Reached("snapshot_before_write");
  THRESHER_RETURN_IF_ERROR(
      WriteFileAtomic(SnapshotPath(run_ / "journal", journal.end().sequence), bytes));
  Reached("snapshot_after_write");
  last_sequence_ = journal.end().sequence;
  durable_steps_ = sealed.durable_steps;
  remembered_ = sealed.remembered;
  ++snapshots_;
  return RetireSnapshots();
}

// All but the newest two that are whole leave; what those stand for need not be read by a start.
Status JournalKeeper::RetireSnapshots() {
  const fs::path folder = run_ / "journal";
  std::vector<std::pair<SnapshotFile, SnapshotHead>> whole;
  for (const SnapshotFile& file : ListSnapshots(folder)) {
    Result<SnapshotHead> head = ReadSnapshotHead(file.path);
    if (head.ok()) {
      whole.emplace_back(file, *head);
    } else if (head.status().code() == StatusCode::kDataLoss) {
      THRESHER_RETURN_IF_ERROR(Files().Remove(file.path));  // the start that met it told of it
    } else {
      return head.status();
    }
  }
  if (whole.size() < kKept) return Status::Ok();
  const SnapshotHead& older = whole[whole.size() - kKept].second;
  for (std::size_t i = 0; i + kKept < whole.size(); ++i) {
    THRESHER_RETURN_IF_ERROR(Retire(whole[i].first.path));
  }
  archive_before_ = older.journal.position.segment;
  store_before_ = older.store.position.segment;
  trim_ = limits_.journal_bytes > 0 || limits_.trajectories_bytes > 0;
  return Status::Ok();
}

// An audit needs it where older records will be deleted.
Status JournalKeeper::Retire(const fs::path& snapshot) {
  if (limits_.journal_bytes == 0) return Files().Remove(snapshot);
  const fs::path archive = snapshot.parent_path() / "archive";
  THRESHER_RETURN_IF_ERROR(CreateDirectories(archive));
  return Files().Rename(snapshot, archive / snapshot.filename());
}

Status JournalKeeper::ArchiveOne(const LogCursor& journal_end) {
  const fs::path folder = run_ / "journal";
  const std::uint32_t last = journal_end.position.segment;
  const std::uint32_t before =
      std::min(archive_before_, last - std::min(last, kNewestSegments - 1));
  THRESHER_ASSIGN_OR_RETURN(const auto segments, ListLog(folder));
  for (const LogSegment& segment : segments) {
    if (segment.archived || segment.number >= before) continue;
    Reached("archive_before_write");
    THRESHER_RETURN_IF_ERROR(ArchiveSegment(folder, segment.number));
    Reached("archive_after_write");
    return Status::Ok();
  }
  archive_before_ = 0;
  return Status::Ok();
}

// The log then begins with the segment of a snapshot, where an audit can begin.
Status JournalKeeper::DeleteJournal() {
  if (limits_.journal_bytes == 0) return Status::Ok();
  const fs::path folder = run_ / "journal";
  THRESHER_ASSIGN_OR_RETURN(std::vector<LogSegment> segments, ListLog(folder));
  std::vector<SnapshotFile> snapshots = AllSnapshots(folder);
  while (BytesOf(segments) > limits_.journal_bytes && snapshots.size() > kKept) {
    // The oldest may be what the log begins with now.
    THRESHER_ASSIGN_OR_RETURN(const SnapshotHead head, ReadSnapshotHead(snapshots.front().path));
    const std::uint32_t begin = head.journal.position.segment;
    if (begin > segments.front().number) {
      Reached("delete_before");
      THRESHER_RETURN_IF_ERROR(DeleteSegmentsBefore(folder, begin));
      Reached("delete_after");
      std::erase_if(segments, [&](const LogSegment& s) { return s.number < begin; });
    } else {
      THRESHER_RETURN_IF_ERROR(Files().Remove(snapshots.front().path));
      snapshots.erase(snapshots.begin());
    }
  }
  return Status::Ok();
}

Status JournalKeeper::DeleteTrajectories(const LogCursor& store_end) {
  if (limits_.trajectories_bytes == 0) return Status::Ok();
  const fs::path folder = run_ / "trajectories";
  THRESHER_ASSIGN_OR_RETURN(const std::vector<LogSegment> segments, ListLog(folder));
  std::uint64_t bytes = BytesOf(segments);
  if (bytes <= limits_.trajectories_bytes) return Status::Ok();
  const std::uint32_t last = store_end.position.segment;
  const std::uint32_t end = std::min(store_before_, last - std::min(last, kNewestSegments - 1));
  std::uint32_t begin = segments.front().number;
  for (const LogSegment& segment : segments) {
    if (segment.number >= end || bytes <= limits_.trajectories_bytes) break;
    bytes -= segment.bytes;
    begin = segment.number + 1;
  }
  THRESHER_ASSIGN_OR_RETURN(begin, FirstSegmentHolding(folder, remembered_, begin));
  if (begin == segments.front().number) return Status::Ok();
  Reached("delete_before");
  THRESHER_RETURN_IF_ERROR(DeleteTrajectoriesBefore(folder, begin));
  Reached("delete_after");
  return Status::Ok();
}

}  // namespace thresher::broker
