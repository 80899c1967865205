#include "learner/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>

namespace thresher::learner {
namespace {

TEST(WorkerPool, RunsEveryTaskExactlyOnceAgainAndAgain) {
  for (std::size_t workers : {1u, 2u, 5u}) {
    WorkerPool pool(workers);
    EXPECT_EQ(pool.workers(), workers);
    for (std::size_t count : {0u, 1u, 2u, 7u, 100u, 0u, 3u}) {
      std::vector<std::atomic<int>> done(count);
      pool.Run(count, [&](std::size_t worker, std::size_t index) {
        ASSERT_LT(worker, workers);
        ASSERT_LT(index, count);
        ++done[index];
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
  pool.Run(400, [&](std::size_t worker, std::size_t) {
    if (++inside[worker] != 1) overlapped = true;
    std::this_thread::yield();
    --inside[worker];
  });
  EXPECT_FALSE(overlapped);
}

TEST(WorkerPool, WorkersRunAtTheSameTime) {
  // Each task waits until the other has begun: with one worker this would never end.
  WorkerPool pool(2);
  std::atomic<int> begun = 0;
  pool.Run(2, [&](std::size_t, std::size_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
  });
  EXPECT_EQ(begun, 2);
}

TEST(WorkerPool, RethrowsTheFirstExceptionAndCanBeUsedAgain) {
  for (std::size_t workers : {1u, 3u}) {
    WorkerPool pool(workers);
    std::atomic<int> done = 0;
    try {
      pool.Run(50, [&](std::size_t, std::size_t index) {
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
    pool.Run(10, [&](std::size_t, std::size_t) { ++done; });
    EXPECT_EQ(done, 10);
  }
}

}  // namespace
}  // namespace thresher::learner
