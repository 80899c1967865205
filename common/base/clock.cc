#include "common/base/clock.h"

#include <utility>

namespace thresher {
namespace {

class RealClock : public Clock {
 public:
  TimePoint Now() const override {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
  }
  std::chrono::nanoseconds WallTime() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::system_clock::now().time_since_epoch());
  }
};

thread_local const Clock* substitute = nullptr;

}  // namespace

const Clock& SystemClock() {
  static const RealClock clock;
  return substitute != nullptr ? *substitute : clock;
}

const Clock* SubstituteClock(const Clock* clock) { return std::exchange(substitute, clock); }

}  // namespace thresher
