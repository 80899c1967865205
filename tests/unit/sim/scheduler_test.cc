#include "tests/support/sim/scheduler.h"

#include <gtest/gtest.h>

#include <condition_variable>

#include "common/sync/condition.h"

namespace thresher::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint Second(int n) { return TimePoint{seconds(n)}; }

TEST(Scheduler, TimeMovesOnlyWhenEverybodyWaits) {
  Trace trace;
  Scheduler scheduler(1, trace);
  std::vector<std::string> order;
  auto sleeper = [&](std::string name, Duration time) {
    scheduler.Start(name, 0, [&scheduler, &order, name, time] {
      scheduler.Sleep(time, "sleeps");
      order.push_back(name);
      return 0;
    });
  };
  sleeper("late", milliseconds(30));
  sleeper("early", milliseconds(10));
  auto end = scheduler.Run([&] { return order.size() == 2; }, Second(1));
  EXPECT_EQ(end, Scheduler::End::kDone);
  EXPECT_EQ(order, (std::vector<std::string>{"early", "late"}));
  EXPECT_EQ(scheduler.Now(), TimePoint{milliseconds(30)});
}

TEST(Scheduler, AWaitEndsByAWakeOrAtItsDeadline) {
  Trace trace;
  Scheduler scheduler(1, trace);
  int key = 0;
  std::vector<bool> woken;
  scheduler.Start("waits", 0, [&] {
    woken.push_back(scheduler.Wait(&key, scheduler.Now() + milliseconds(5), "waits"));
    woken.push_back(scheduler.Wait(&key, scheduler.Now() + milliseconds(50), "waits"));
    return 0;
  });
  scheduler.After(milliseconds(10), [&] { scheduler.Wake(&key, true); });
  scheduler.Run([&] { return woken.size() == 2; }, Second(1));
  EXPECT_EQ(woken, (std::vector<bool>{false, true}));
  EXPECT_EQ(scheduler.Now(), TimePoint{milliseconds(10)});
}

TEST(Scheduler, EqualSeedsGiveEqualOrdersAndOthersDiffer) {
  auto order = [](std::uint64_t seed) {
    Trace trace;
    Scheduler scheduler(seed, trace);
    std::string text;
    for (char name = 'a'; name <= 'z'; ++name) {
      scheduler.Start(std::string(1, name), 0, [&, name] {
        for (int i = 0; i < 3; ++i) {
          text += name;
          scheduler.Sleep(milliseconds(1), "sleeps");
        }
        return 0;
      });
    }
    scheduler.Run([] { return false; }, Second(1));
    return text;
  };
  EXPECT_EQ(order(7), order(7));
  EXPECT_NE(order(7), order(8));
}

// Counts its life and death.
struct Resource {
  explicit Resource(int& counter) : alive(counter) { ++alive; }
  ~Resource() { --alive; }
  int& alive;
};

TEST(Scheduler, AKillUnwindsEveryTaskOfTheProcessChildrenFirst) {
  Trace trace;
  Scheduler scheduler(1, trace);
  int alive = 0;
  std::vector<std::string> ended;
  std::optional<Exit> exit;
  Process& process = scheduler.Start(
      "process", 0,
      [&] {
        Resource resource(alive);
        struct Joins {
          Scheduler& scheduler;
          std::uint64_t task;
          ~Joins() { scheduler.Join(task); }
        };
        Joins joins{scheduler, scheduler.Spawn("child", [&] {
                      Resource own(alive);
                      struct Says {
                        std::vector<std::string>& ended;
                        ~Says() { ended.push_back("child"); }
                      } says{ended};
                      scheduler.Sleep(seconds(100), "sleeps");
                    })};
        struct Says {
          std::vector<std::string>& ended;
          ~Says() { ended.push_back("main"); }
        } says{ended};
        scheduler.Sleep(seconds(100), "sleeps");
        return 0;
      },
      [&](const Exit& e) { exit = e; });
  scheduler.After(seconds(1), [&] {
    EXPECT_EQ(alive, 2);
    scheduler.Kill(process);
  });
  EXPECT_EQ(scheduler.Run([&] { return exit.has_value(); }, Second(50)), Scheduler::End::kDone);
  EXPECT_TRUE(exit->killed);
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(ended, (std::vector<std::string>{"child", "main"}));
}

TEST(Scheduler, AProcessMayKillItselfAndDoesNothingMore) {
  Trace trace;
  Scheduler scheduler(1, trace);
  bool went_on = false;
  bool over = false;
  scheduler.Start(
      "process", 0,
      [&] {
        scheduler.Kill(*scheduler.current());
        went_on = true;
        return 0;
      },
      [&](const Exit& exit) { over = exit.killed; });
  scheduler.Run([&] { return over; }, Second(1));
  EXPECT_TRUE(over);
  EXPECT_FALSE(went_on);
}

TEST(Scheduler, AnExceptionEndsTheProcessWithItsText) {
  Trace trace;
  Scheduler scheduler(1, trace);
  std::optional<Exit> exit;
  scheduler.Start(
      "process", 0, [&]() -> int { throw std::runtime_error("broken"); },
      [&](const Exit& e) { exit = e; });
  scheduler.Run([&] { return exit.has_value(); }, Second(1));
  EXPECT_FALSE(exit->killed);
  EXPECT_EQ(exit->code, 3);
  EXPECT_EQ(exit->error, "main: broken");
}

// A task may wait inside a handler while another one throws and catches.
TEST(Scheduler, HandledExceptionsBelongToTheirTask) {
  Trace trace;
  Scheduler scheduler(1, trace);
  std::string first, second;
  scheduler.Start("first", 0, [&] {
    try {
      throw std::runtime_error("one");
    } catch (const std::exception&) {
      scheduler.Sleep(milliseconds(10), "sleeps");
      try {
        throw;
      } catch (const std::exception& error) {
        first = error.what();
      }
    }
    return 0;
  });
  scheduler.Start("second", 0, [&] {
    scheduler.Sleep(milliseconds(5), "sleeps");
    try {
      throw std::runtime_error("two");
    } catch (const std::exception& error) {
      scheduler.Sleep(milliseconds(10), "sleeps");
      second = error.what();
    }
    return 0;
  });
  scheduler.Run([&] { return !second.empty(); }, Second(1));
  EXPECT_EQ(first, "one");
  EXPECT_EQ(second, "two");
}

TEST(Scheduler, AStalledProcessDoesNotRun) {
  Trace trace;
  Scheduler scheduler(1, trace);
  TimePoint woke{};
  Process& process = scheduler.Start("process", 0, [&] {
    scheduler.Sleep(milliseconds(10), "sleeps");
    woke = scheduler.Now();
    return 0;
  });
  scheduler.After(milliseconds(1), [&] { scheduler.Stall(process, seconds(2)); });
  scheduler.Run([&] { return woke != TimePoint{}; }, Second(10));
  EXPECT_EQ(woke, TimePoint{seconds(2) + milliseconds(1)});
}

TEST(Scheduler, SaysWhatEverybodyWaitsForWhenNothingCanHappen) {
  Trace trace;
  Scheduler scheduler(1, trace);
  int key = 0;
  scheduler.Start("process", 0, [&] {
    scheduler.Wait(&key, std::nullopt, "waits for Godot");
    return 0;
  });
  EXPECT_EQ(scheduler.Run([] { return false; }, Second(1)), Scheduler::End::kDeadlock);
  EXPECT_NE(scheduler.Report().find("process main: waits for Godot"), std::string::npos);
}

TEST(Scheduler, FindsALoopThatNeverWaits) {
  Trace trace;
  Scheduler scheduler(1, trace);
  scheduler.Start("process", 0, [&] {
    while (true) scheduler.Sleep({}, "spins");
    return 0;
  });
  EXPECT_EQ(scheduler.Run([] { return false; }, Second(1)), Scheduler::End::kNoProgress);
}

TEST(Scheduler, ATurnOfABusyLoopTakesTheTimeOfItsProcess) {
  Trace trace;
  Scheduler scheduler(1, trace);
  std::mutex mutex;
  sync::Condition condition;
  TimePoint end{};
  Process& process = scheduler.Start("process", 0, [&] {
    std::unique_lock lock(mutex);
    for (int i = 0; i < 1000; ++i) scheduler.WaitUntil(condition, lock, scheduler.Now());
    end = scheduler.Now();
    return 0;
  });
  process.turn = milliseconds(10);
  scheduler.Run([&] { return end != TimePoint{}; }, Second(100));
  EXPECT_NEAR(std::chrono::duration<double>(end.time_since_epoch()).count(), 10.0, 1.5);
}

}  // namespace
}  // namespace thresher::sim
