#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker/partials.h"
#include "common/base/fault.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"

namespace thresher::broker {

// The write-ahead journal of a run: `journal/` (records of what happened to the work) and
// `trajectories/` (accepted bytes). Writing is in groups: Record and Store only collect, Seal makes
// a group of what was collected, Write writes it: trajectories first and journal records after
// them, so that a journalled acceptance always has its bytes. The caller lets no effect of a record
// leave the process before its group was written.
//
// In mode off nobody waits for trajectories: they are written behind the records, without being
// synced, and where a disk does not keep up, or refuses them, they are left out (not_stored).
//
// A record's kind in the log is its index in wire::JournalRecord. One owner, not thread-safe; but
// another thread may be in Write while the owner collects.
class Journal {
 public:
  // Makes the folders when missing; cuts torn tails off (repaired_bytes). `faults` (borrowed; may
  // be null) hears of "journal_before_write", "store_after_sync" and so on: each LogPoint of both
  // logs. Errors: kDataLoss naming file and record; kUnavailable.
  static Result<std::unique_ptr<Journal>> Open(const std::filesystem::path& run,
                                               const JournalConfig& config,
                                               FaultPlan* faults = nullptr);

  void Record(const wire::JournalRecord& record);
  void Store(StoredRecord record);
  // From here on `partials/` (partial_log.h) is written in the same groups. Errors as Open.
  Status OpenPartials(const std::filesystem::path& run, const JournalConfig& config,
                      FaultPlan* faults = nullptr);
  bool keeps_partials() const { return partials_.has_value(); }
  // Whether a prefix of so many bytes may be added: with mode off its disk holds nobody up, and
  // what waits for it is bounded.
  bool TakesPrefix(std::size_t bytes) const {
    return !off_ || next_.prefixes.empty() || next_.prefix_bytes + bytes <= most_aside_bytes_;
  }
  // What there is of an unfinished sample, and of drawn tokens; with OpenPartials (checked).
  void Keep(const TrajectoryId& id, std::uint64_t number, SharedBytes bytes);
  void KeepTally(std::string tally);
  // Everything collected becomes the group to be written. Not while there is one (checked).
  void Seal();
  // Writes the sealed group; in durable mode it is on the disk afterwards. Errors:
  // kResourceExhausted (disk full), kUnavailable (I/O). Nothing is forgotten then: a later Write
  // continues where this one stopped.
  Status Write();
  // The sealed group is written, the owner has seen: there is none now. Where its trajectories lie.
  std::vector<TrajectoryStoreReader::Entry> Finish();
  // And its prefixes.
  std::vector<Partials::Written> FinishPartials() { return std::exchange(partial_places_, {}); }
  // Behind the last prefix; as end().
  LogCursor partials_end() const { return partials_->end(); }
  // Where the last tally lies that was written; 0: nowhere yet. As end().
  std::uint32_t tally_segment() const { return tally_segment_; }
  // All of this at once. Not beside another thread's Write.
  Status Commit();
  // Everything committed is on the disk afterwards, whatever the mode. Errors as in Commit.
  Status Sync();
  // Behind the last record, and the last trajectory: what is committed, when !dirty().
  LogCursor end() const { return log_.end(); }
  LogCursor store_end() const { return store_->end(); }
  // The index of trajectories/, derived data that saves readers a scan.
  Status WriteIndex() { return store_->WriteIndex(); }

  bool sealed() const { return sealed_; }
  bool dirty() const { return sealed_ || !next_.empty(); }
  // What somebody waits for: collected since Seal; of the sealed group.
  std::size_t pending_bytes() const { return next_.bytes; }
  std::size_t sealed_bytes() const { return sealed_ ? group_.bytes : 0; }
  // Trajectories that nobody waits for.
  std::size_t aside_bytes() const { return next_.aside_bytes + (sealed_ ? group_.aside_bytes : 0); }
  std::uint64_t not_stored() const { return not_stored_.load(); }  // trajectories left out
  std::uint64_t repaired_bytes() const { return log_.repaired_bytes(); }
  std::uint64_t commits() const { return commits_; }

 private:
  struct Pending {
    std::uint32_t kind;
    std::size_t bytes;
  };
  struct Prefix {
    TrajectoryId id;
    std::uint64_t number = 0;
    SharedBytes bytes;
  };
  struct Group {
    std::vector<Pending> records;
    std::string encoded;  // one behind the other
    std::vector<StoredRecord> block;
    std::vector<Prefix> prefixes;
    std::string tally;
    std::size_t bytes = 0;
    std::size_t aside_bytes = 0;
    std::size_t prefix_bytes = 0;
    bool empty() const {
      return records.empty() && block.empty() && prefixes.empty() && tally.empty();
    }
  };
  Journal(RecordLogWriter log, std::unique_ptr<TrajectoryStoreWriter> store,
          const JournalConfig& config)
      : log_(std::move(log)),
        store_(std::move(store)),
        durable_(config.mode == "durable"),
        off_(config.off()),
        most_aside_bytes_(static_cast<std::size_t>(config.group_commit_bytes)) {}
  Status WriteBlock();
  Status AppendBlock();
  Status WriteRecords();
  Status WritePartials();
  // The trajectories of the group, or none of them.
  void WriteAside();

  RecordLogWriter log_;
  std::optional<RecordLogWriter> partials_;
  std::unique_ptr<TrajectoryStoreWriter> store_;
  bool durable_;
  bool off_;
  std::size_t most_aside_bytes_;  // of a group; one trajectory at least
  Group next_;                    // being collected
  Group group_;                   // sealed; Write's, but for `bytes`
  bool sealed_ = false;           // there is one
  bool unflushed_ = false;  // Write's: something was appended that a failed flush has not written
  // Write's: of what is written and was not given away by Finish.
  std::vector<TrajectoryStoreReader::Entry> places_;
  std::vector<Partials::Written> partial_places_;  // the same, of prefixes
  bool partials_unflushed_ = false;  // as unflushed_, of partials_
  std::uint32_t tally_segment_ = 0;  // Write's
  bool aside_unflushed_ = false;  // Write's, of mode off: the store has not taken what it was given
  std::atomic<std::uint64_t> not_stored_{0};
  std::uint64_t commits_ = 0;
};

}  // namespace thresher::broker
