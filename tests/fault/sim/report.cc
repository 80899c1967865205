#include "tests/fault/sim/report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace thresher::sim {

namespace {

// What a history may do to the farm, beside deaths at crash points, by the names it is counted
// under.
constexpr const char* kFaults[] = {
    // processes
    "broker killed", "actor killed", "learner rank killed", "broker asked to stop",
    "actor asked to stop", "process stalled", "late report", "prefix granted",
    // network
    "connection cut", "silent reconnect", "reconnect", "connection stalled", "half-open connection",
    "partition", "frames lost", "frame duplicated", "frame overtaken",
    // disk
    "power cut", "write forgotten", "write torn", "name forgotten", "write cut short by a death",
    "disk fills", "disk full", "write error", "sync error", "slow sync"};

}  // namespace

void Report::Add(const HistoryOutcome& outcome) {
  ++histories_;
  events_ += outcome.events;
  virtual_seconds_ += outcome.virtual_seconds;
  cpu_seconds_ += outcome.cpu_seconds;
  for (const auto& [name, times] : outcome.counts) counts_[name] += times;
  if (!outcome.problems.empty()) failures_.push_back(outcome);
}

std::string Report::Text() const {
  char line[160];
  const double count = static_cast<double>(std::max<std::uint64_t>(histories_, 1));
  std::snprintf(line, sizeof line,
                "%llu histories, %llu failed; %.1f s simulated and %.3f s of processor time each\n",
                static_cast<unsigned long long>(histories_),
                static_cast<unsigned long long>(failures_.size()), virtual_seconds_ / count,
                cpu_seconds_ / count);
  std::string text = line;
  for (const auto& [name, times] : counts_) {
    std::snprintf(line, sizeof line, "  %-40s %12llu\n", name.c_str(),
                  static_cast<unsigned long long>(times));
    text += line;
  }
  return text;
}

std::string Report::Seldom(std::uint64_t times) const {
  std::vector<std::string> names(std::begin(kFaults), std::end(kFaults));
  for (const std::string& point : CrashPoints()) names.push_back("death at " + point);
  std::string text;
  for (const std::string& name : names) {
    auto found = counts_.find(name);
    const std::uint64_t count = found == counts_.end() ? 0 : found->second;
    if (count < times) text += "  " + name + ": " + std::to_string(count) + "\n";
  }
  return text;
}

std::string Report::Json() const {
  nlohmann::ordered_json failures = nlohmann::ordered_json::array();
  for (const HistoryOutcome& failure : failures_) {
    failures.push_back({{"seed", failure.seed}, {"problems", failure.problems}});
  }
  const nlohmann::ordered_json text = {
      {"histories", histories_},     {"failures", failures},
      {"events", events_},           {"virtual_seconds", virtual_seconds_},
      {"cpu_seconds", cpu_seconds_}, {"counts", counts_}};
  return text.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace thresher::sim
