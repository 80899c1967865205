#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include "common/sync/named_thread.h"
#include "common/sync/scheduler.h"

namespace thresher::sync {

// A body that runs beside its owner: a NamedThread, or a task of this thread's scheduler where
// there is one. The destructor asks the body to stop and joins. Move-only.
class Task {
 public:
  using Body = NamedThread::Body;

  Task() = default;
  Task(std::string name, Body body);
  Task(Task&&) noexcept;
  Task& operator=(Task&&) noexcept;
  ~Task();

  void RequestStop();
  // Blocks until the body has ended; nothing when there is none, or when it was joined before.
  void Join();
  bool joinable() const { return thread_.joinable() || scheduler_ != nullptr; }

 private:
  NamedThread thread_;
  Scheduler* scheduler_ = nullptr;  // of the task; null: there is none, or it is a thread
  Scheduler::TaskId task_ = 0;
  std::optional<std::stop_source> stop_;  // of the task
};

// Blocks the calling thread or task.
void SleepFor(Duration duration);

}  // namespace thresher::sync
