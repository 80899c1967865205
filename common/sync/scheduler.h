#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "common/base/clock.h"

namespace thresher::sync {

class Condition;

// Who runs tasks and lets them wait. Production has none: tasks are threads and wait as threads do.
// A simulation substitutes one that runs all tasks of all its processes as fibers of one thread:
// every wait of a task is a call of this class, in which another one runs.
//
// Ending a process before its time. The scheduler lets WaitUntil or SleepFor throw TaskKilled in
// each of its tasks, those that a task started before the task itself, and does not run anything
// else of the process in between. While a task unwinds (std::uncaught_exceptions() > 0) it may
// neither be suspended nor thrown at: WaitUntil returns false and SleepFor returns, both at once.
// Join returns at once in a process that is being ended, for what it waits for is over or about to
// be; it never throws, because destructors call it. Destructors call nothing else of this class but
// Notify, so a task that was in one goes on until its next wait, which then throws.
class Scheduler {
 public:
  using TaskId = std::uint64_t;

  virtual ~Scheduler() = default;
  // Makes `body` a task of the calling task's process, ready to run. It begins later: never inside
  // this call. What `body` throws, other than TaskKilled, is a bug of the program.
  virtual TaskId Spawn(const std::string& name, std::function<void()> body) = 0;
  // Waits until the task's body has ended. Once for each task.
  virtual void Join(TaskId task) noexcept = 0;
  // Waits for a Notify of `condition` or for `deadline`, whichever is first; false when it was the
  // deadline. May return true for no reason. A deadline that has passed waits for nothing, yet lets
  // others run. `lock` is let go meanwhile and held again afterwards, also when it throws.
  virtual bool WaitUntil(Condition& condition, std::unique_lock<std::mutex>& lock,
                         TimePoint deadline) = 0;
  // Makes those ready that wait for `condition`, or the one that has waited longest. Lets nobody
  // run.
  virtual void Notify(Condition& condition, bool all) noexcept = 0;
  virtual void SleepFor(Duration duration) = 0;
};

// Ends a task: thrown by a scheduler, caught by nobody but a scheduler. Not a std::exception, and
// `catch (...)` passes it on.
struct TaskKilled {};

// The scheduler of this thread; null: none, which is production.
Scheduler* CurrentScheduler();
// Borrowed; null: none. Returns what it was before. A task, a condition and those who wait for it
// belong to one scheduler, or all to none.
Scheduler* SubstituteScheduler(Scheduler* scheduler);

}  // namespace thresher::sync
