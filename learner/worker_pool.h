#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace thresher::learner {

// A few persistent threads that share out numbered tasks, each worker taking the next one. The
// calling thread is worker 0. Which worker takes which task is left to chance: results must not
// depend on it. Run is called by one thread at a time.
class WorkerPool {
 public:
  explicit WorkerPool(std::size_t workers);
  ~WorkerPool();
  std::size_t workers() const { return threads_.size() + 1; }
  // Calls task(worker, index) for index in [0, count) and returns when all are done. The first
  // exception of a task is rethrown here.
  void Run(std::size_t count, const std::function<void(std::size_t, std::size_t)>& task);

 private:
  void Loop(std::size_t worker, std::stop_token stop);
  void TakeTasks(std::size_t worker);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  const std::function<void(std::size_t, std::size_t)>* task_ = nullptr;
  std::size_t next_ = 0, count_ = 0, busy_ = 0;
  std::uint64_t round_ = 0;
  std::exception_ptr error_;
  std::vector<std::jthread> threads_;
};

}  // namespace thresher::learner
