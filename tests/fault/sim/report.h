#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/sim/sweep.h"

namespace thresher::sim {

// The sum of many histories.
class Report {
 public:
  void Add(const HistoryOutcome& outcome);

  std::uint64_t histories() const { return histories_; }
  const std::vector<HistoryOutcome>& failures() const { return failures_; }
  // For people: totals, and how often each fault and crash point occurred.
  std::string Text() const;
  // Faults, and deaths at crash points, that occurred less often than `times`, with how often they
  // did, one a line.
  std::string Seldom(std::uint64_t times) const;
  // {"histories", "failures": [{"seed", "problems"}], "events", "virtual_seconds", "cpu_seconds",
  // "counts": {name: times}}
  std::string Json() const;

 private:
  std::uint64_t histories_ = 0, events_ = 0;
  double virtual_seconds_ = 0, cpu_seconds_ = 0;
  std::map<std::string, std::uint64_t> counts_;
  std::vector<HistoryOutcome> failures_;
};

}  // namespace thresher::sim
