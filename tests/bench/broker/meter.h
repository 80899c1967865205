#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace thresher::bench {

// What a load counts: for some seconds, from one second after its start on, when everything is on
// its way. Says "begin" when it begins to count. One owner; `learned` may grow in another thread.
class Meter {
 public:
  using Clock = std::chrono::steady_clock;

  Meter(double seconds, const std::atomic<std::uint64_t>& learned)
      : seconds_(seconds), learned_(learned) {}

  // Whether there is more to count: for a loop's head.
  bool GoesOn() {
    const Clock::time_point now = Clock::now();
    if (!begun_ && now >= begin_) {
      begun_ = true;
      done_ = 0;
      learned_before_ = learned_;
      latencies_.clear();
      std::printf("begin\n");
      std::fflush(stdout);
    }
    const std::chrono::duration<double> counted = now - begin_;
    return counted.count() < seconds_;
  }
  // `count` of them were answered; they were sent then.
  void Answered(Clock::time_point sent, std::uint64_t count) {
    const std::chrono::duration<float, std::micro> took = Clock::now() - sent;
    latencies_.push_back(took.count());
    done_ += count;
  }
  // Prints the result as a line of JSON; `unit`: what was counted.
  void Print(const std::string& unit) {
    std::ranges::sort(latencies_);
    const nlohmann::json report = {
        {unit, done_},
        {"seconds", seconds_},
        {"learned", learned_ - learned_before_},
        {"latency_us",
         {{"p50", Quantile(0.5)}, {"p99", Quantile(0.99)}, {"p99.9", Quantile(0.999)}}}};
    std::printf("%s\n", report.dump().c_str());
    std::fflush(stdout);
  }

 private:
  float Quantile(double q) const {
    if (latencies_.empty()) return 0;
    return latencies_[static_cast<std::size_t>(q * static_cast<double>(latencies_.size() - 1))];
  }

  double seconds_;
  const std::atomic<std::uint64_t>& learned_;
  Clock::time_point begin_ = Clock::now() + std::chrono::seconds(1);
  bool begun_ = false;
  std::uint64_t done_ = 0, learned_before_ = 0;
  std::vector<float> latencies_;
};

}  // namespace thresher::bench
