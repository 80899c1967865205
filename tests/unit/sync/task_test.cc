#include "common/sync/task.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "common/sync/condition.h"

namespace thresher::sync {
namespace {

using std::chrono::milliseconds;

TEST(Task, ThreadRunsBesideItsOwnerAndIsStoppedByTheDestructor) {
  std::atomic<bool> stopped = false;
  const auto owner = std::this_thread::get_id();
  {
    Task task("beside", [&](std::stop_token stop) {
      EXPECT_NE(std::this_thread::get_id(), owner);
      while (!stop.stop_requested()) SleepFor(milliseconds(1));
      stopped = true;
    });
    EXPECT_TRUE(task.joinable());
    Task moved = std::move(task);
    EXPECT_FALSE(task.joinable());
  }
  EXPECT_TRUE(stopped);
}

TEST(Condition, WaiterIsWokenByANotification) {
  std::mutex mutex;
  Condition condition;
  bool ready = false;
  Task task("waker", [&](std::stop_token) {
    std::lock_guard lock(mutex);
    ready = true;
    condition.NotifyAll();
  });
  std::unique_lock lock(mutex);
  EXPECT_TRUE(condition.WaitFor(lock, std::chrono::minutes(1), [&] { return ready; }));
}

TEST(Condition, WaitEndsAtItsDeadlineWithWhatThePredicateSays) {
  std::mutex mutex;
  Condition condition;
  std::unique_lock lock(mutex);
  const TimePoint begin = SystemClock().Now();
  EXPECT_FALSE(condition.WaitFor(lock, milliseconds(20), [] { return false; }));
  EXPECT_GE(SystemClock().Now() - begin, milliseconds(20));
  EXPECT_FALSE(condition.WaitFor(lock, milliseconds(0), [] { return false; }));
  EXPECT_TRUE(condition.WaitFor(lock, milliseconds(0), [] { return true; }));
  EXPECT_TRUE(lock.owns_lock());
}

// Runs a task when it is joined or somebody waits, on the calling thread; time is what is slept.
class InlineScheduler : public Scheduler {
 public:
  InlineScheduler() : clock_before_(SubstituteClock(&clock)), before_(SubstituteScheduler(this)) {}
  ~InlineScheduler() override {
    SubstituteScheduler(before_);
    SubstituteClock(clock_before_);
  }
  TaskId Spawn(const std::string& name, std::function<void()> body) override {
    names.push_back(name);
    ready_[++last_] = std::move(body);
    return last_;
  }
  void Join(TaskId task) noexcept override { Run(task); }
  bool WaitUntil(Condition&, std::unique_lock<std::mutex>& lock, TimePoint deadline) override {
    lock.unlock();
    ++waits;
    const bool any = !ready_.empty();
    if (any) {
      Run(ready_.begin()->first);
    } else {
      clock.Advance(deadline - clock.Now());
    }
    lock.lock();
    return any;
  }
  void Notify(Condition&, bool) noexcept override { ++notifications; }
  void SleepFor(Duration duration) override { clock.Advance(duration); }

  ManualClock clock;
  std::vector<std::string> names;
  int waits = 0, notifications = 0;

 private:
  void Run(TaskId task) {
    auto node = ready_.extract(task);
    if (node) node.mapped()();
  }
  std::map<TaskId, std::function<void()>> ready_;
  TaskId last_ = 0;
  const Clock* clock_before_;
  Scheduler* before_;
};

TEST(Scheduler, TaskIsItsTaskWithAStopTokenOfItsOwn) {
  InlineScheduler scheduler;
  bool asked = false, ran = false;
  {
    Task task("link", [&](std::stop_token stop) {
      ran = true;
      asked = stop.stop_requested();
    });
    EXPECT_FALSE(ran);
    Task moved = std::move(task);
    EXPECT_TRUE(moved.joinable());
    EXPECT_FALSE(task.joinable());
  }
  EXPECT_TRUE(ran && asked);
  EXPECT_EQ(scheduler.names, std::vector<std::string>{"link"});
}

TEST(Scheduler, AnotherTaskRunsWhileOneWaits) {
  InlineScheduler scheduler;
  std::mutex mutex;
  Condition condition;
  bool ready = false;
  Task task("waker", [&](std::stop_token) {
    std::lock_guard lock(mutex);  // would hang if the waiter kept it
    ready = true;
    condition.NotifyOne();
  });
  std::unique_lock lock(mutex);
  EXPECT_TRUE(condition.WaitFor(lock, milliseconds(5), [&] { return ready; }));
  EXPECT_EQ(scheduler.waits, 1);
  EXPECT_EQ(scheduler.notifications, 1);
}

TEST(Scheduler, WaitsAndSleepsTakeItsTime) {
  InlineScheduler scheduler;
  const TimePoint begin = SystemClock().Now();
  SleepFor(std::chrono::hours(1));
  std::mutex mutex;
  Condition condition;
  std::unique_lock lock(mutex);
  EXPECT_FALSE(condition.WaitFor(lock, std::chrono::hours(2), [] { return false; }));
  EXPECT_EQ(SystemClock().Now() - begin, std::chrono::hours(3));
}

TEST(Scheduler, NoWaitIsStillATurnForTheOthers) {
  InlineScheduler scheduler;
  std::mutex mutex;
  Condition condition;
  std::unique_lock lock(mutex);
  EXPECT_FALSE(condition.WaitFor(lock, milliseconds(0), [] { return false; }));
  EXPECT_EQ(scheduler.waits, 1);
}

// Kills whoever waits.
class Killer : public InlineScheduler {
 public:
  bool WaitUntil(Condition&, std::unique_lock<std::mutex>&, TimePoint) override {
    throw TaskKilled();
  }
};

TEST(Scheduler, KilledWaiterUnwindsWithItsLockHeld) {
  Killer killer;
  std::mutex mutex;
  Condition condition;
  try {
    std::unique_lock lock(mutex);
    condition.WaitFor(lock, milliseconds(1), [] { return false; });
    FAIL() << "it went on";
  } catch (const TaskKilled&) {
  }
  EXPECT_TRUE(mutex.try_lock());  // the lock was held, and let go by unwinding
  mutex.unlock();
}

}  // namespace
}  // namespace thresher::sync
