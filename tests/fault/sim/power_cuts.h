#pragma once

#include <cstdint>
#include <string>

namespace thresher::sim {

struct PowerCuts {
  std::uint64_t points = 0;  // histories, each with one cut
  std::uint64_t uses = 0;    // of the disk by the broker, in the runs without one
  std::string problems;      // empty: nothing that was acknowledged was lost
};

// A farm in `durable` mode whose disk forgets whatever no completed sync covers. It is run once for
// each of a few workloads to count how often its broker uses the disk, then again and again, each
// time with the power cut at one of `points` of these uses, spread evenly over all of them.
PowerCuts CutPowerEverywhere(std::uint64_t points);

}  // namespace thresher::sim
