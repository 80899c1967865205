#include "learner/worker_pool.h"

#include <utility>

#include "kernels/cpu/fpenv.h"

namespace thresher::learner {

WorkerPool::WorkerPool(std::size_t workers) {
  for (std::size_t w = 1; w < workers; ++w) {
    threads_.emplace_back([this, w](std::stop_token stop) { Loop(w, stop); });
  }
}

WorkerPool::~WorkerPool() {
  for (auto& thread : threads_) thread.request_stop();
}

void WorkerPool::TakeTasks(std::size_t worker) {
  std::unique_lock lock(mutex_);
  while (next_ < count_) {
    std::size_t index = next_++;
    const auto* task = task_;
    lock.unlock();
    std::exception_ptr error;
    try {
      (*task)(worker, index);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error && !error_) {
      error_ = error;
      next_ = count_;
    }
  }
}

void WorkerPool::Loop(std::size_t worker, std::stop_token stop) {
  kernels::PinFpEnv();
  std::uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return round_ != seen; })) return;
      seen = round_;
    }
    TakeTasks(worker);
    std::lock_guard lock(mutex_);
    if (--busy_ == 0) changed_.notify_all();
  }
}

void WorkerPool::Run(std::size_t count, const std::function<void(std::size_t, std::size_t)>& task) {
  {
    std::lock_guard lock(mutex_);
    task_ = &task;
    next_ = 0;
    count_ = count;
    busy_ = threads_.size();
    error_ = nullptr;
    ++round_;
  }
  changed_.notify_all();
  TakeTasks(0);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return busy_ == 0; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace thresher::learner
