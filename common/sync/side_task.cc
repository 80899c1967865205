#include "common/sync/side_task.h"

#include <utility>

#include "common/base/check.h"

namespace thresher::sync {
namespace {

// A wait without news lets the task see that it is to end.
constexpr std::chrono::seconds kLook{1};

}  // namespace

SideTask::SideTask(std::string name, std::function<void()> done)
    : files_(Files()),
      done_(std::move(done)),
      task_(std::move(name), [this](const std::stop_token& stop) { Run(stop); }) {}

SideTask::~SideTask() {
  std::lock_guard lock(mutex_);
  task_.RequestStop();
  changed_.NotifyAll();
}

void SideTask::Begin(Job job) {
  THRESHER_CHECK(!std::exchange(busy_, true), "two jobs at once");
  std::lock_guard lock(mutex_);
  job_ = std::move(job);
  changed_.NotifyAll();
}

std::optional<Status> SideTask::Take(Duration timeout) {
  std::unique_lock lock(mutex_);
  if (timeout > Duration::zero()) {
    changed_.WaitFor(lock, timeout, [&] { return outcome_.has_value(); });
  }
  std::optional<Status> outcome = std::exchange(outcome_, std::nullopt);
  if (outcome) busy_ = false;
  return outcome;
}

void SideTask::Run(const std::stop_token& stop) {
  SubstituteFiles(&files_);
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      changed_.WaitFor(lock, kLook, [&] { return job_ != nullptr || stop.stop_requested(); });
      if (job_ == nullptr && stop.stop_requested()) return;
      job = std::exchange(job_, nullptr);
    }
    if (job == nullptr) continue;
    Status status = job();
    {
      std::lock_guard lock(mutex_);
      outcome_ = std::move(status);
      changed_.NotifyAll();
    }
    done_();
  }
}

}  // namespace thresher::sync
