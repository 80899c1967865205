#pragma once

#include <chrono>
#include <functional>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace thresher::comm {

// Waits for what can only be asked for, until a point in time. Asks often at first (a peer in step
// answers within microseconds), then sleeps between, longer and longer: a rank that waits leaves
// its core to others.
class Poller {
 public:
  using Sleep = std::function<void(std::chrono::microseconds)>;

  // `clock` is borrowed. sleep: the thread's if empty.
  explicit Poller(TimePoint end, const Clock& clock = SystemClock(), Sleep sleep = {});

  // True: what is waited for is there; false: not yet; an error ends the wait.
  using Question = std::function<Result<bool>()>;
  // Asks until the answer is yes or an error, which is returned. kDeadlineExceeded, without text,
  // once it is no at or after `end`: the last question is always put after the end, so a thread
  // that was not scheduled meanwhile takes nobody for missing.
  Status Await(const Question& question) const;

 private:
  const TimePoint end_;
  const Clock& clock_;
  const Sleep sleep_;
};

}  // namespace thresher::comm
