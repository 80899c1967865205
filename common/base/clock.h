#pragma once

#include <chrono>

namespace thresher {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// The time, injected into everything that waits or expires, so that a test can set it.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;                      // monotonic
  virtual std::chrono::nanoseconds WallTime() const = 0;  // since 1970-01-01 UTC; for records only
};

// The machine's, which lives as long as the process; or what this thread has put in its place.
const Clock& SystemClock();
// From now on SystemClock() on this thread is `clock` (borrowed; null: the machine's). Returns what
// it was before.
const Clock* SubstituteClock(const Clock* clock);

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
