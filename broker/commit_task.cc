#include "broker/commit_task.h"

#include <utility>

namespace thresher::broker {
namespace {

// A wait without news lets the task see that it is to end.
constexpr std::chrono::seconds kLook{1};

}  // namespace

CommitTask::CommitTask(Journal& journal, std::function<void()> done)
    : journal_(journal),
      files_(Files()),
      done_(std::move(done)),
      task_("journal", [this](const std::stop_token& stop) { Run(stop); }) {}

CommitTask::~CommitTask() {
  std::lock_guard lock(mutex_);
  task_.RequestStop();
  changed_.NotifyAll();
}

void CommitTask::Begin() {
  THRESHER_CHECK(!std::exchange(busy_, true), "two groups are written at once");
  std::lock_guard lock(mutex_);
  asked_ = true;
  changed_.NotifyAll();
}

std::optional<Status> CommitTask::Take(Duration timeout) {
  std::unique_lock lock(mutex_);
  if (timeout > Duration::zero()) {
    changed_.WaitFor(lock, timeout, [&] { return outcome_.has_value(); });
  }
  std::optional<Status> outcome = std::exchange(outcome_, std::nullopt);
  if (outcome) busy_ = false;
  return outcome;
}

void CommitTask::Run(const std::stop_token& stop) {
  SubstituteFiles(&files_);
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.WaitFor(lock, kLook, [&] { return asked_ || stop.stop_requested(); });
      if (!asked_ && stop.stop_requested()) return;
      if (!std::exchange(asked_, false)) continue;
    }
    Status status = journal_.Write();
    {
      std::lock_guard lock(mutex_);
      outcome_ = std::move(status);
      changed_.NotifyAll();
    }
    done_();
  }
}

}  // namespace thresher::broker
