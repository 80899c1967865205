#pragma once

#include <condition_variable>
#include <mutex>

#include "common/base/clock.h"
#include "common/sync/scheduler.h"

namespace thresher::sync {

// A condition variable whose waits all have an end, and go through this thread's scheduler where
// there is one.
class Condition {
 public:
  void NotifyOne() noexcept;
  void NotifyAll() noexcept;

  // Waits until `predicate` holds, or until `end`; returns whether it holds then. `lock` is held
  // when it is asked. Where it holds at once nobody waits; an `end` that has passed is no wait,
  // only, under a scheduler, a turn for the others.
  template <typename Predicate>
  bool WaitUntil(std::unique_lock<std::mutex>& lock, TimePoint end, Predicate predicate) {
    while (!predicate()) {
      if (!Wait(lock, end)) return predicate();
    }
    return true;
  }
  template <typename Predicate>
  bool WaitFor(std::unique_lock<std::mutex>& lock, Duration timeout, Predicate predicate) {
    return WaitUntil(lock, SystemClock().Now() + timeout, predicate);
  }

 private:
  // False when `end` has come.
  bool Wait(std::unique_lock<std::mutex>& lock, TimePoint end);

  std::condition_variable real_;
};

}  // namespace thresher::sync
