#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "common/base/clock.h"

namespace thresher::broker {

// Amount per second over a sliding window. Time is passed in.
class RateWindow {
 public:
  explicit RateWindow(Duration window = std::chrono::seconds(10)) : window_(window) {}
  void Add(double amount, TimePoint now);
  double PerSecond(TimePoint now);

 private:
  Duration window_;
  std::deque<std::pair<TimePoint, double>> events_;
  double sum_ = 0;
};

// Everything the broker counts by name, in one place: status.json, /metrics and metrics.jsonl read
// the same names. Plain data, one owner.
class Metrics {
 public:
  // A number that only grows ("frames_malformed", "samples_duplicate").
  void Count(const std::string& name, double amount = 1) { counts_[name] += amount; }
  // A number that is as it is now ("leases").
  void Set(const std::string& name, double value) { gauges_[name] = value; }
  double count(const std::string& name) const;
  double gauge(const std::string& name) const;
  const std::map<std::string, double>& counts() const { return counts_; }
  const std::map<std::string, double>& gauges() const { return gauges_; }

  RateWindow& generated() { return generated_; }  // policy tokens accepted
  RateWindow& trained() { return trained_; }      // tokens of committed steps
  RateWindow& steps() { return steps_; }

 private:
  std::map<std::string, double> counts_;
  std::map<std::string, double> gauges_;
  RateWindow generated_;
  RateWindow trained_;
  RateWindow steps_{std::chrono::seconds(30)};
};

}  // namespace thresher::broker
