#include "common/comm/poll.h"

#include <algorithm>
#include <thread>

namespace thresher::comm {
namespace {

constexpr int kSpins = 2000;
constexpr std::chrono::microseconds kFirstSleep{50}, kLongestSleep{1000};

}  // namespace

Poller::Poller(TimePoint end, const Clock& clock, Sleep sleep)
    : end_(end), clock_(clock), sleep_(std::move(sleep)) {}

Status Poller::Await(const Question& question) const {
  std::chrono::microseconds pause = kFirstSleep;
  for (int round = 0;; ++round) {
    const bool late = clock_.Now() >= end_;
    THRESHER_ASSIGN_OR_RETURN(const bool there, question());
    if (there) return Status::Ok();
    if (late) return DeadlineExceeded("");
    if (round < kSpins) continue;
    if (sleep_) {
      sleep_(pause);
    } else {
      std::this_thread::sleep_for(pause);
    }
    pause = std::min(pause * 2, kLongestSleep);
  }
}

}  // namespace thresher::comm
