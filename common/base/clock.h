#pragma once

#include <chrono>

namespace thresher {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// The time, injected into everything that waits or expires, so that a test can set it.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;                 // monotonic
  virtual std::chrono::nanoseconds WallTime() const = 0;  // since 1970-01-01 UTC; for records only
};

// The real one; a singleton that lives as long as the process.
const Clock& SystemClock();

// A clock that moves only when told to. Not thread-safe.
class ManualClock : public Clock {
 public:
  TimePoint Now() const override { return now_; }
  std::chrono::nanoseconds WallTime() const override { return now_.time_since_epoch(); }
  void Advance(Duration step) { now_ += step; }

 private:
  TimePoint now_{};
};

}  // namespace thresher
