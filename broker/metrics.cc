#include "broker/metrics.h"

#include <algorithm>

namespace thresher::broker {

void RateWindow::Add(double amount, TimePoint now) {
  events_.push_back({now, amount});
  sum_ += amount;
}

double RateWindow::PerSecond(TimePoint now) {
  while (!events_.empty() && now - events_.front().first > window_) {
    sum_ -= events_.front().second;
    events_.pop_front();
  }
  if (events_.empty()) {
    sum_ = 0;
    return 0;
  }
  // A young window is not yet full: divide by what it covers, but at least by a second.
  double covered = std::chrono::duration<double>(now - events_.front().first).count();
  return sum_ / std::max(1.0, covered);
}

double Metrics::count(const std::string& name) const {
  auto found = counts_.find(name);
  return found == counts_.end() ? 0 : found->second;
}

double Metrics::gauge(const std::string& name) const {
  auto found = gauges_.find(name);
  return found == gauges_.end() ? 0 : found->second;
}

}  // namespace thresher::broker
