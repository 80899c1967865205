#pragma once

#include <functional>
#include <mutex>
#include <optional>

#include "broker/journal.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/data/file_system.h"
#include "common/sync/condition.h"
#include "common/sync/task.h"

namespace thresher::broker {

// Writes the journal's sealed groups beside the broker's loop, one at a time, so that frames are
// read while a group is encoded, written and synced. What the loop says of a group it says when
// Take has returned it. All members are for the loop's thread.
class CommitTask {
 public:
  // `journal` is borrowed; between Begin and Take its Write is the task's, which has the files of
  // the thread that calls this. `done` is called on the task, without a lock, whenever there is
  // something to take.
  CommitTask(Journal& journal, std::function<void()> done);
  // Waits for the group that is being written.
  ~CommitTask();
  CommitTask(const CommitTask&) = delete;
  CommitTask& operator=(const CommitTask&) = delete;

  bool busy() const { return busy_; }
  // Begins to write the sealed group. Not while busy (checked).
  void Begin();
  // The outcome of Journal::Write; waits for it up to `timeout`. Nothing: it goes on.
  std::optional<Status> Take(Duration timeout);

 private:
  void Run(const std::stop_token& stop);

  Journal& journal_;
  FileSystem& files_;
  const std::function<void()> done_;
  bool busy_ = false;  // of the loop
  std::mutex mutex_;   // guards the two below
  bool asked_ = false;
  std::optional<Status> outcome_;
  sync::Condition changed_;
  sync::Task task_;
};

}  // namespace thresher::broker
