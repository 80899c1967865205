#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/sim/end_check.h"

namespace thresher::sim {

// What became of one history.
struct HistoryOutcome {
  std::uint64_t seed = 0;
  std::string problems;    // empty: every promise was kept
  std::uint64_t hash = 0;  // of everything that happened
  std::uint64_t events = 0;
  double virtual_seconds = 0;
  double cpu_seconds = 0;
  std::map<std::string, std::uint64_t> counts;  // of faults and crash points
};

// Runs histories one after another and remembers the results of undisturbed runs.
class Sweep {
 public:
  HistoryOutcome Run(std::uint64_t seed, Trace::Reader reader = {});

 private:
  // Of the undisturbed run. Problem text in *problems where it has any.
  const RunResult& Expected(std::uint32_t workload, std::string* problems);

  std::map<std::uint32_t, RunResult> expected_;
};

}  // namespace thresher::sim
