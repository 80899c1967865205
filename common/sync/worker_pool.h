#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "common/base/status.h"
#include "common/sync/named_thread.h"

namespace thresher {

struct WorkerPoolOptions {
  int threads = 1;          // the caller included, at least 1
  std::vector<int> cpus{};  // thread i of the pool runs on cpus[i % size] only; empty: anywhere.
                            // The caller is thread 0 and is left where it is.
  // How long a thread without work looks for it before it parks in the kernel. Waking a parked
  // thread takes tens of microseconds, the products of a small model a few.
  std::chrono::microseconds spin{50};
  std::function<void()> on_start{};  // runs first on every thread of the pool but the caller's
  std::string name = "worker";
};

// A few persistent threads that share out numbered tasks, each taking the next one. The calling
// thread is worker 0 and works too. Which worker takes which task is left to chance: results must
// not depend on it. One Run at a time (checked); tasks must not call Run of their own pool.
class WorkerPool {
 public:
  explicit WorkerPool(WorkerPoolOptions options);
  explicit WorkerPool(int threads) : WorkerPool(WorkerPoolOptions{.threads = threads}) {}
  ~WorkerPool();  // joins
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls task(worker, index) for index in [0, count), worker in [0, threads()), and returns when
  // all are done; a worker has one task at a time. After the first exception no further task is
  // begun and it is rethrown here. Allocates nothing. count < 2^31.
  template <class Task>
  void Run(std::int64_t count, Task&& task) {
    using Type = std::remove_reference_t<Task>;
    RunErased(count, {const_cast<void*>(static_cast<const void*>(&task)),
                      [](void* t, int worker, std::int64_t index) {
                        (*static_cast<Type*>(t))(worker, index);
                      }});
  }

 private:
  struct ErasedTask {
    void* object = nullptr;
    void (*call)(void* object, int worker, std::int64_t index) = nullptr;
  };

  void RunErased(std::int64_t count, ErasedTask task);
  void Loop(int worker, const std::stop_token& stop);
  void TakeTasks(int worker);
  bool HasTasks() const;
  void Cancel(std::exception_ptr error);
  // Marks `count` tasks of the round as over; the last one wakes the caller.
  void Retire(std::int64_t count);

  const std::chrono::microseconds spin_;
  const std::function<void()> on_start_;
  ErasedTask task_;         // of the round; stable while it has tasks that are not over
  std::int64_t count_ = 0;  // likewise
  bool running_ = false;
  // High half: number of the round. Low half: its tasks that nobody has taken. A task is taken by
  // compare-and-swap, so that a late thread can never take one of a later round unawares.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::uint32_t> unfinished_{0};
  alignas(64) std::atomic<std::uint32_t> wake_{0};  // changes when there may be work, or an end
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::vector<NamedThread> threads_;
};

// Sets the calling thread's processor. Errors: kInvalidArgument (no such processor, or not allowed
// to this process), naming it.
Status PinThisThread(int cpu);

}  // namespace thresher
