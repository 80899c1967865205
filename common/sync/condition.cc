#include "common/sync/condition.h"

namespace thresher::sync {

void Condition::NotifyOne() noexcept {
  if (Scheduler* scheduler = CurrentScheduler()) return scheduler->Notify(*this, false);
  real_.notify_one();
}

void Condition::NotifyAll() noexcept {
  if (Scheduler* scheduler = CurrentScheduler()) return scheduler->Notify(*this, true);
  real_.notify_all();
}

bool Condition::Wait(std::unique_lock<std::mutex>& lock, TimePoint end) {
  if (Scheduler* scheduler = CurrentScheduler()) return scheduler->WaitUntil(*this, lock, end);
  if (SystemClock().Now() >= end) return false;
  return real_.wait_until(lock, end) == std::cv_status::no_timeout;
}

}  // namespace thresher::sync
