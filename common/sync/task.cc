#include "common/sync/task.h"

#include <thread>
#include <utility>

namespace thresher::sync {

Task::Task(std::string name, Body body) {
  Scheduler* scheduler = CurrentScheduler();
  if (scheduler == nullptr) {
    thread_ = NamedThread(std::move(name), std::move(body));
    return;
  }
  stop_.emplace();
  task_ =
      scheduler->Spawn(name, [body = std::move(body), stop = stop_->get_token()] { body(stop); });
  scheduler_ = scheduler;
}

Task::Task(Task&& other) noexcept
    : thread_(std::move(other.thread_)),
      scheduler_(std::exchange(other.scheduler_, nullptr)),
      task_(other.task_),
      stop_(std::move(other.stop_)) {}

Task& Task::operator=(Task&& other) noexcept {
  Task old(std::move(*this));
  thread_ = std::move(other.thread_);
  scheduler_ = std::exchange(other.scheduler_, nullptr);
  task_ = other.task_;
  stop_ = std::move(other.stop_);
  return *this;
}

Task::~Task() {
  RequestStop();
  Join();
}

void Task::RequestStop() {
  if (scheduler_ != nullptr) {
    stop_->request_stop();
  } else {
    thread_.RequestStop();
  }
}

void Task::Join() {
  if (Scheduler* scheduler = std::exchange(scheduler_, nullptr)) {
    scheduler->Join(task_);
  } else {
    thread_.Join();
  }
}

void SleepFor(Duration duration) {
  if (Scheduler* scheduler = CurrentScheduler()) return scheduler->SleepFor(duration);
  std::this_thread::sleep_for(duration);
}

}  // namespace thresher::sync
