#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <semaphore>
#include <stdexcept>
#include <thread>

#include "common/sync/bounded_queue.h"
#include "common/sync/named_thread.h"
#include "common/sync/signals.h"

namespace thresher {
namespace {

using namespace std::chrono_literals;

TEST(BoundedQueueTest, KeepsOrderAndMovesItems) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  ASSERT_TRUE(queue.Push(std::make_unique<int>(1), 1s).ok());
  ASSERT_TRUE(queue.TryPush(std::make_unique<int>(2)).ok());
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(*queue.Pop(1s).value(), 1);
  EXPECT_EQ(**queue.TryPop(), 2);
  EXPECT_FALSE(queue.TryPop().has_value());
}

TEST(BoundedQueueTest, FullAndEmptyWaitsEndAtTheirDeadline) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_EQ(queue.Pop(5ms).status().code(), StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(queue.TryPush(std::make_unique<int>(1)).ok());
  auto second = std::make_unique<int>(2);
  EXPECT_EQ(queue.TryPush(std::move(second)).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(queue.Push(std::move(second), 5ms).code(), StatusCode::kDeadlineExceeded);
  ASSERT_NE(second, nullptr);  // what did not enter is still the caller's
}

TEST(BoundedQueueTest, CloseEndsWaitsAndKeepsWhatIsInside) {
  BoundedQueue<int> full(1), empty(1);
  ASSERT_TRUE(full.TryPush(7).ok());
  StatusCode push = StatusCode::kOk, pop = StatusCode::kOk;
  {
    std::jthread pusher([&] { push = full.Push(8, 60s).code(); });
    std::jthread popper([&] { pop = empty.Pop(60s).status().code(); });
    full.Close();
    empty.Close();
  }
  EXPECT_EQ(push, StatusCode::kCancelled);
  EXPECT_EQ(pop, StatusCode::kCancelled);
  EXPECT_EQ(full.Pop(1s).value(), 7);
  EXPECT_EQ(full.Pop(1s).status().code(), StatusCode::kCancelled);
  EXPECT_EQ(full.TryPush(1).code(), StatusCode::kCancelled);
}

TEST(BoundedQueueTest, ManyThreadsLoseAndDoubleNothing) {
  constexpr int kThreads = 4, kItems = 2000;
  BoundedQueue<int> queue(8);
  std::atomic<long> sum = 0;
  std::atomic<int> taken = 0;
  {
    std::vector<std::jthread> consumers;
    for (int t = 0; t < kThreads; ++t) {
      consumers.emplace_back([&] {
        while (true) {
          Result<int> item = queue.Pop(60s);
          if (!item.ok()) return;
          sum += *item;
          ++taken;
        }
      });
    }
    {
      std::vector<std::jthread> producers;
      for (int t = 0; t < kThreads; ++t) {
        producers.emplace_back([&, t] {
          for (int i = 0; i < kItems; ++i) {
            EXPECT_TRUE(queue.Push(t * kItems + i, 60s).ok());
            EXPECT_LE(queue.size(), queue.capacity());
          }
        });
      }
    }
    queue.Close();
  }
  long n = kThreads * kItems;
  EXPECT_EQ(taken, n);
  EXPECT_EQ(sum, n * (n - 1) / 2);
}

TEST(NamedThreadTest, HasItsNameAndStopsWhenDestroyed) {
  std::binary_semaphore started(0);
  std::string name;
  {
    NamedThread thread("a-name-longer-than-the-system-shows", [&](std::stop_token stop) {
      char text[32] = "";
      pthread_getname_np(pthread_self(), text, sizeof text);
      name = text;
      started.release();
      std::mutex mutex;
      std::condition_variable_any woken;
      std::unique_lock lock(mutex);
      woken.wait(lock, stop, [] { return false; });
    });
    started.acquire();
  }
  EXPECT_EQ(name, "a-name-longer-t");
}

TEST(NamedThreadTest, ExceptionReachesTheFatalHandler) {
  std::string failure;
  NamedThread thread(
      "worker", [](std::stop_token) { throw std::runtime_error("broken"); },
      [&](const std::string& text) { failure = text; });
  thread.Join();
  EXPECT_EQ(failure, "thread worker ended by an exception: broken");
  NamedThread other(
      "odd", [](std::stop_token) { throw 5; }, [&](const std::string& text) { failure = text; });
  other.Join();
  EXPECT_EQ(failure, "thread odd ended by an unknown exception");
}

TEST(NamedThreadDeathTest, ExceptionWithoutAHandlerIsAFailedCheck) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        NamedThread thread("worker", [](std::stop_token) { throw std::runtime_error("broken"); });
        thread.Join();
      },
      "check failed.*thread worker ended by an exception: broken");
}

TEST(SignalWatcherTest, SignalsReachTheHandlerInOrderOfKind) {
  std::counting_semaphore<8> seen(0);
  std::atomic<int> terminated = 0, asked = 0;
  {
    SignalWatcher watcher([&](int signal) {
      ++(signal == SIGTERM ? terminated : asked);
      seen.release();
    });
    ASSERT_EQ(::kill(::getpid(), SIGTERM), 0);
    ASSERT_TRUE(seen.try_acquire_for(10s));
    ASSERT_EQ(::kill(::getpid(), SIGUSR1), 0);
    ASSERT_TRUE(seen.try_acquire_for(10s));
    // Threads started under the watcher are not interrupted either.
    std::jthread([&] { ASSERT_EQ(::kill(::getpid(), SIGINT), 0); }).join();
    ASSERT_TRUE(seen.try_acquire_for(10s));
  }
  EXPECT_EQ(terminated, 1);
  EXPECT_EQ(asked, 2);
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_EQ(sigismember(&mask, SIGTERM), 0);
}

}  // namespace
}  // namespace thresher
