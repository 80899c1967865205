#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/base/clock.h"
#include "common/base/process.h"
#include "common/sync/scheduler.h"
#include "tests/support/sim/random.h"
#include "tests/support/sim/trace.h"

namespace thresher::sim {

struct Task;

// How a process ended.
struct Exit {
  bool killed = false;
  int code = 0;
  std::string error;  // an exception that nobody caught
};

// A simulated process: a main task and the tasks that it started. Owned by the scheduler.
class Process {
 public:
  const std::string& name() const { return name_; }
  int machine() const { return machine_; }
  std::uint32_t pid() const { return shown_.pid; }
  // False from the kill on, while its tasks unwind and after.
  bool alive() const { return alive_; }
  // How long a turn of a loop that has something to do takes it, on average.
  Duration turn{std::chrono::milliseconds(1)};

 private:
  friend class Scheduler;
  std::string name_;
  int machine_ = 0;
  ProcessName shown_;  // what it tells others of itself
  bool alive_ = true;
  TimePoint stalled_until_{};  // it does not run before
  std::function<int()> main_;
  std::function<void(const Exit&)> on_exit_;
  Exit exit_;
  std::vector<Task*> tasks_;  // in the order of their start
};

// Runs the tasks of simulated processes on one thread, one at a time, in an order and with a time
// that a seed decides. A task runs until it waits; when all wait, the clock moves to the next
// moment at which something happens. Computing takes the time that its process is said to need.
//
// A killed process is unwound task by task as sync::Scheduler tells, and does nothing more: see
// Dead(). Its main task is the last.
class Scheduler : public Clock, public sync::Scheduler {
 public:
  Scheduler(std::uint64_t seed, Trace& trace);
  ~Scheduler() override;  // EndAll

  TimePoint Now() const override { return now_; }
  std::chrono::nanoseconds WallTime() const override;
  Trace& trace() { return trace_; }

  // `main` gives the exit code; on_exit is called between tasks when none of its tasks is left.
  Process& Start(std::string name, int machine, std::function<int()> main,
                 std::function<void(const Exit&)> on_exit = {});
  // Takes effect before any other task runs. Called by a task of the process itself it does not
  // return. No effect on a process that has ended.
  void Kill(Process& process);
  // Kills all processes, without a word to on_exit; none of their tasks is left when it returns.
  // Between tasks.
  void EndAll();
  // Does not run for `time` from now on.
  void Stall(Process& process, Duration time);
  const std::vector<std::unique_ptr<Process>>& processes() const { return processes_; }

  // Calls `event` between tasks, at `time`.
  void At(TimePoint time, std::function<void()> event);
  void After(Duration time, std::function<void()> event) { At(now_ + time, std::move(event)); }

  // Of the task that calls; null between tasks.
  Process* current() const;
  // The calling task belongs to a process that was killed: whatever it does has no effect any more.
  bool Dead() const;
  // Until Wake of the same key, or the deadline: false. `what` is a literal, for reports.
  bool Wait(const void* key, std::optional<TimePoint> deadline, const char* what);
  void Wake(const void* key, bool all);
  void Sleep(Duration time, const char* what);

  // sync::Scheduler. Of what production code calls, these alone let others run.
  TaskId Spawn(const std::string& name, std::function<void()> body) override;
  void Join(TaskId task) noexcept override;
  bool WaitUntil(sync::Condition& condition, std::unique_lock<std::mutex>& lock,
                 TimePoint deadline) override;
  void Notify(sync::Condition& condition, bool all) noexcept override { Wake(&condition, all); }
  void SleepFor(Duration duration) override { Sleep(duration, "sleeps"); }

  enum class End { kDone, kDeadlock, kTimeLimit, kNoProgress };
  // Until `done` (looked at between tasks). kDeadlock: nothing will ever happen again; kNoProgress:
  // a million turns without time moving.
  End Run(const std::function<bool()>& done, TimePoint limit);
  // What every task waits for, one a line.
  std::string Report() const;
  std::uint64_t turns() const { return turns_; }

 private:
  struct Timer {
    TimePoint time;
    std::uint64_t number;  // order among equal times
    Task* task;            // null: an event
    std::uint64_t wait;    // the wait of the task that it ends
    bool operator>(const Timer& other) const {
      return time != other.time ? time > other.time : number > other.number;
    }
  };

  Task& NewTask(Process& process, std::string name, std::function<void()> body);
  void RunMain(Process& process);
  // Whether the calling task, which wants to wait, goes on instead: it unwinds. Throws when it has
  // to begin to.
  bool Unwinds();
  void Leave(const char* what, std::optional<TimePoint> until);
  void MakeReady(Task& task);
  void Resume(Task& task);
  bool RunOneReady();
  void FireNextTimer();
  void ReapKilled();
  void Finish(Process& process);

  Trace& trace_;
  Random random_;
  TimePoint now_{};
  std::vector<std::unique_ptr<Process>> processes_;
  std::vector<std::unique_ptr<Task>> tasks_;
  std::vector<Task*> ready_;
  std::vector<Process*> killed_;  // whose tasks are not unwound yet
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::unordered_map<std::uint64_t, std::function<void()>> events_;  // by number of their timer
  std::unordered_map<const void*, std::vector<Task*>> waiting_;      // by key, in order of arrival
  Task* current_ = nullptr;
  std::uint64_t next_timer_ = 0;
  std::uint64_t turns_ = 0;
};

}  // namespace thresher::sim
