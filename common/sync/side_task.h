#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/data/file_system.h"
#include "common/sync/condition.h"
#include "common/sync/task.h"

namespace thresher::sync {

// Does what waits for the disk beside its owner's loop, one job at a time, so that frames are read
// and steps computed meanwhile. What the loop says of a job it says when Take has returned its
// outcome. All members are for the loop's thread.
class SideTask {
 public:
  using Job = std::function<Status()>;

  // `done` is called on the task, without a lock, whenever there is something to take.
  SideTask(std::string name, std::function<void()> done);
  // Waits for the job that is being done.
  ~SideTask();
  SideTask(const SideTask&) = delete;
  SideTask& operator=(const SideTask&) = delete;

  bool busy() const { return busy_; }
  // Begins `job`, which has the files of the thread that made this. Not while busy (checked).
  // Between Begin and Take what it uses is the task's.
  void Begin(Job job);
  // What the job returned; waits for it up to `timeout`. Nothing: it goes on.
  std::optional<Status> Take(Duration timeout);

 private:
  void Run(const std::stop_token& stop);

  FileSystem& files_;
  const std::function<void()> done_;
  bool busy_ = false;  // of the loop
  std::mutex mutex_;   // guards the two below
  Job job_;
  std::optional<Status> outcome_;
  Condition changed_;
  Task task_;
};

}  // namespace thresher::sync
