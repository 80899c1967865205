#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace thresher::launch {

// The live line of a run from the broker's status.json:
// "rl 140/200   reward 0.41  pass@1 0.39  generated 9.1k tok/s  trained 7.2k tok/s  staleness 0
// mismatch 0  ETA 1:10".
std::string ProgressLine(const nlohmann::json& status);

// "0.45 [0.42, 0.48]" of an estimate {"value", "low", "high"}.
std::string EstimateText(const nlohmann::json& estimate);
// "9.1k", "312", "1.2M".
std::string ShortNumber(double value);
// "512 B", "3.1 MiB".
std::string ShortBytes(double bytes);
// "1:10", "2:03:04".
std::string ShortDuration(double seconds);

// A line that changes: redrawn in place at a terminal, else printed at most every `interval`.
// Lines above it are printed through Print.
class ProgressDisplay {
 public:
  explicit ProgressDisplay(std::chrono::seconds interval = std::chrono::seconds(5));
  ~ProgressDisplay();
  void Update(const std::string& line);
  void Print(const std::string& line);  // a line that stays

 private:
  bool terminal_;
  std::chrono::seconds interval_;
  std::chrono::steady_clock::time_point next_{};
  std::string shown_;
};

}  // namespace thresher::launch
