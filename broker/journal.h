#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/base/fault.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"

namespace thresher::broker {

// The write-ahead journal of a run: `journal/` (records of what happened to the work) and
// `trajectories/` (accepted bytes). Writing is in groups: Record and Store only collect, Commit
// writes trajectories first and journal records after them, so that a journalled acceptance always
// has its bytes. The caller lets no effect of a record leave the process before Commit succeeded.
//
// A record's kind in the log is its index in wire::JournalRecord. One owner, not thread-safe.
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
  // Writes everything collected; in durable mode it is on the disk afterwards. Errors:
  // kResourceExhausted (disk full), kUnavailable (I/O). Nothing is forgotten then: a later Commit
  // continues where this one stopped.
  Status Commit();
  // The index of trajectories/, derived data that saves readers a scan.
  Status WriteIndex() { return store_->WriteIndex(); }

  bool dirty() const { return !records_.empty() || !block_.empty() || unflushed_; }
  std::size_t pending_bytes() const { return pending_bytes_; }
  std::uint64_t repaired_bytes() const { return log_.repaired_bytes(); }
  std::uint64_t commits() const { return commits_; }

 private:
  struct Pending {
    std::uint32_t kind;
    std::string bytes;
  };
  Journal(RecordLogWriter log, std::unique_ptr<TrajectoryStoreWriter> store, bool durable)
      : log_(std::move(log)), store_(std::move(store)), durable_(durable) {}

  RecordLogWriter log_;
  std::unique_ptr<TrajectoryStoreWriter> store_;
  bool durable_;
  std::vector<Pending> records_;
  std::vector<StoredRecord> block_;
  bool unflushed_ = false;  // something was appended that a failed flush has not written
  std::size_t pending_bytes_ = 0;
  std::uint64_t commits_ = 0;
};

}  // namespace thresher::broker
