#include "common/sync/worker_pool.h"

#include <pthread.h>
#include <sched.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/check.h"

namespace thresher {
namespace {

constexpr std::uint64_t kLowHalf = 0xffffffffu;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `ready` holds: looks at it for `spin`, then parks on `word` while it keeps its value.
template <class Ready>
void SpinThenPark(std::chrono::microseconds spin, const std::atomic<std::uint32_t>& word,
                  Ready ready) {
  constexpr int kLooksPerClock = 32;  // a look is cheaper than reading the clock
  const auto until = std::chrono::steady_clock::now() + spin;
  do {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (ready()) return;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  while (true) {
    const std::uint32_t seen = word.load(std::memory_order_seq_cst);
    if (ready()) return;
    word.wait(seen, std::memory_order_seq_cst);
  }
}

}  // namespace

Status PinThisThread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(static_cast<std::size_t>(cpu), &set);
  const int error = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  if (error == 0) return Status::Ok();
  return InvalidArgument("processor " + std::to_string(cpu) + ": " + std::strerror(error) +
                         "; allowed: those of this process");
}

WorkerPool::WorkerPool(WorkerPoolOptions options)
    : spin_(options.spin), on_start_(std::move(options.on_start)) {
  THRESHER_CHECK(options.threads >= 1, "a pool of no threads");
  for (int worker = 1; worker < options.threads; ++worker) {
    int cpu = -1;
    if (!options.cpus.empty()) {
      cpu = options.cpus[static_cast<std::size_t>(worker) % options.cpus.size()];
    }
    threads_.emplace_back(options.name + "-" + std::to_string(worker),
                          [this, worker, cpu](std::stop_token stop) {
                            if (cpu >= 0) {
                              const Status pinned = PinThisThread(cpu);
                              THRESHER_CHECK(pinned.ok(), pinned.ToString());
                            }
                            if (on_start_) on_start_();
                            Loop(worker, stop);
                          });
  }
}

WorkerPool::~WorkerPool() {
  for (auto& thread : threads_) thread.RequestStop();
  wake_.fetch_add(1, std::memory_order_seq_cst);
  wake_.notify_all();
  for (auto& thread : threads_) thread.Join();
}

bool WorkerPool::HasTasks() const {
  return (ticket_.load(std::memory_order_seq_cst) & kLowHalf) != 0;
}

void WorkerPool::Retire(std::int64_t count) {
  const auto over = static_cast<std::uint32_t>(count);
  if (unfinished_.fetch_sub(over, std::memory_order_acq_rel) == over) unfinished_.notify_all();
}

void WorkerPool::Cancel(std::exception_ptr error) {
  {
    const std::scoped_lock lock(error_mutex_);
    if (!error_) error_ = std::move(error);
  }
  // The caller's own task is not over yet, so the ticket is still of this round.
  const std::uint64_t before = ticket_.fetch_and(~kLowHalf, std::memory_order_acq_rel);
  if ((before & kLowHalf) != 0) Retire(static_cast<std::int64_t>(before & kLowHalf));
}

void WorkerPool::TakeTasks(int worker) {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while ((ticket & kLowHalf) != 0) {
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    const std::int64_t index = count_ - static_cast<std::int64_t>(ticket & kLowHalf);
    try {
      task_.call(task_.object, worker, index);
    } catch (...) {
      Cancel(std::current_exception());
    }
    Retire(1);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void WorkerPool::Loop(int worker, const std::stop_token& stop) {
  while (true) {
    SpinThenPark(spin_, wake_, [&] { return stop.stop_requested() || HasTasks(); });
    if (stop.stop_requested()) return;
    TakeTasks(worker);
  }
}

void WorkerPool::RunErased(std::int64_t count, ErasedTask task) {
  THRESHER_CHECK(count >= 0 && count < (std::int64_t{1} << 31), "number of tasks out of range");
  THRESHER_CHECK(!std::exchange(running_, true), "two runs of one pool at a time");
  if (count > 0) {
    task_ = task;
    count_ = count;
    unfinished_.store(static_cast<std::uint32_t>(count), std::memory_order_relaxed);
    const std::uint64_t round = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store((round << 32) | static_cast<std::uint64_t>(count), std::memory_order_seq_cst);
    if (!threads_.empty() && count > 1) {
      wake_.fetch_add(1, std::memory_order_seq_cst);
      wake_.notify_all();
    }
    TakeTasks(0);
    SpinThenPark(spin_, unfinished_,
                 [&] { return unfinished_.load(std::memory_order_seq_cst) == 0; });
  }
  running_ = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace thresher
