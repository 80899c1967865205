#include "common/sync/worker_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace thresher {
namespace {

TEST(WorkerPool, RunsEveryTaskExactlyOnceAgainAndAgain) {
  for (int workers : {1, 2, 5}) {
    WorkerPool pool(workers);
    EXPECT_EQ(pool.threads(), workers);
    for (std::int64_t count : {0, 1, 2, 7, 100, 0, 3}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(count));
      pool.Run(count, [&](int worker, std::int64_t index) {
        ASSERT_LT(worker, workers);
        ASSERT_LT(index, count);
        ++done[static_cast<std::size_t>(index)];
      });
      for (auto& times : done) EXPECT_EQ(times, 1);
    }
  }
}

TEST(WorkerPool, AWorkerHasOneTaskAtATime) {
  // What a scratch per worker relies on.
  WorkerPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<bool> overlapped = false;
  pool.Run(400, [&](int worker, std::int64_t) {
    if (++inside[static_cast<std::size_t>(worker)] != 1) overlapped = true;
    std::this_thread::yield();
    --inside[static_cast<std::size_t>(worker)];
  });
  EXPECT_FALSE(overlapped);
}

TEST(WorkerPool, WorkersRunAtTheSameTime) {
  // Each task waits until the other has begun: with one worker this would never end.
  WorkerPool pool(2);
  std::atomic<int> begun = 0;
  pool.Run(2, [&](int, std::int64_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
  });
  EXPECT_EQ(begun, 2);
}

TEST(WorkerPool, RethrowsTheFirstExceptionAndCanBeUsedAgain) {
  for (int workers : {1, 3}) {
    WorkerPool pool(workers);
    std::atomic<int> done = 0;
    try {
      pool.Run(50, [&](int, std::int64_t index) {
        if (index == 20) throw std::runtime_error("task 20");
        ++done;
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "task 20");
    }
    if (workers == 1) {
      EXPECT_EQ(done, 20);  // no task is begun after one has failed
    }
    done = 0;
    pool.Run(10, [&](int, std::int64_t) { ++done; });
    EXPECT_EQ(done, 10);
  }
}

TEST(WorkerPool, ParkedThreadsAreWokenAndNoRoundIsLost) {
  // No spinning: every round finds its threads parked, or on their way there.
  WorkerPool pool(WorkerPoolOptions{.threads = 3, .spin = std::chrono::microseconds(0)});
  std::int64_t sum = 0;
  for (int round = 0; round < 3000; ++round) {
    std::atomic<std::int64_t> seen = 0;
    pool.Run(4, [&](int, std::int64_t index) { seen += index + round; });
    sum += seen - 4 * round;
  }
  EXPECT_EQ(sum, 3000 * 6);
}

TEST(WorkerPool, ATaskOfOneRoundIsNeverTakenInAnother) {
  // Rounds follow one another at once, with tasks of different kinds: a late thread that took one
  // with the wrong function would write into a round that is over.
  WorkerPool pool(4);
  for (int round = 0; round < 20000; ++round) {
    std::atomic<int> own = 0;
    if (round % 2 == 0) {
      pool.Run(2, [&](int, std::int64_t) { own += 1; });
      ASSERT_EQ(own, 2) << "round " << round;
    } else {
      pool.Run(3, [&](int, std::int64_t) { own += 10; });
      ASSERT_EQ(own, 30) << "round " << round;
    }
  }
}

TEST(WorkerPool, PinsItsThreadsWhereAsked) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  int cpu = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) ++cpu;
  WorkerPool pool(WorkerPoolOptions{.threads = 2, .cpus = {cpu}});
  std::atomic<int> begun = 0, processors = 0;
  pool.Run(2, [&](int worker, std::int64_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
    cpu_set_t own;
    CPU_ZERO(&own);
    sched_getaffinity(0, sizeof own, &own);
    if (worker == 1)
      processors = CPU_ISSET(static_cast<std::size_t>(cpu), &own) ? CPU_COUNT(&own) : -1;
  });
  EXPECT_EQ(processors, 1);
  EXPECT_EQ(PinThisThread(1 << 20).code(), StatusCode::kInvalidArgument);
}

TEST(WorkerPool, EveryThreadBeginsWithTheGivenStart) {
  std::atomic<int> started = 0;
  WorkerPool pool(WorkerPoolOptions{.threads = 3, .on_start = [&] { ++started; }});
  std::atomic<int> begun = 0;
  pool.Run(3, [&](int, std::int64_t) {
    ++begun;
    while (begun < 3) std::this_thread::yield();
  });
  EXPECT_EQ(started, 2);
}

}  // namespace
}  // namespace thresher
