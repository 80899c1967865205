#include "common/gpu/shared_device.h"

#include <algorithm>
#include <string>
#include <thread>

namespace thresher::gpu {

Status AwaitMemory(std::chrono::milliseconds patience, const std::function<Status()>& take) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kFirstPause{2}, kLongestPause{200};
  const Clock::time_point begin = Clock::now();
  for (auto pause = kFirstPause;; pause = std::min(2 * pause, kLongestPause)) {
    const Status taken = take();
    if (taken.code() != StatusCode::kResourceExhausted) return taken;
    if (Clock::now() - begin >= patience) {
      if (patience.count() == 0) return taken;
      return ResourceExhausted(taken.message() + "; asked for " + std::to_string(patience.count()) +
                               " ms: whoever shares the device has not given its memory back");
    }
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace thresher::gpu
