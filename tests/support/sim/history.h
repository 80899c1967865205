#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/config/config.h"
#include "tests/support/sim/disk.h"
#include "tests/support/sim/network.h"

namespace thresher::sim {

// What a run computes: everything that its result depends on. Few, so that the result of the
// undisturbed run is known for each.
inline constexpr std::uint32_t kWorkloads = 12;
Config WorkloadConfig(std::uint32_t workload);

// How often something is done to the farm on purpose: the mean time between two, 0 for never.
struct Disturbances {
  Duration kill_broker{}, kill_actor{}, kill_learner{};
  Duration stop_broker{}, stop_actor{};                     // asked to stop, as by SIGTERM
  Duration stall_broker{}, stall_actor{}, stall_learner{};  // does not run for a while
  Duration stall_time{std::chrono::seconds(2)};             // mean
  Duration power_cut{};
  Duration disk_full{};
  Duration disk_full_time{std::chrono::seconds(3)};  // mean
  Duration partition{};                              // the broker hears nobody for a while
  Duration reconnects{};                             // a connection breaks
  double kill_at_point = 0;  // chance of a death at a crash point that is passed
  std::string deadly_point;  // at this one, the chance is:
  double kill_at_deadly_point = 0;
  // The broker's machine loses power at this use of the disk by the broker, counted over its lives;
  // 0 for never.
  std::uint64_t power_cut_at_use = 0;
  DiskFaults disk;
  NetworkFaults network;
  Duration until{std::chrono::seconds(60)};  // from then on nothing is done any more
};

// The crash points at which a history may kill: those of production code, and those of every use of
// the disk.
const std::vector<std::string>& CrashPoints();

// One history: a workload, how it is run, and what happens to it; a function of its seed.
struct History {
  std::uint64_t seed = 0;
  std::uint32_t workload = 0;
  Config config;            // the workload's, with how it is run
  bool one_machine = true;  // else broker, learner and actors have machines of their own
  bool tcp = false;
  bool job_dies_at_once = true;  // a lost rank ends the others, as mpirun does; else they find out
  int late_reports = 0;          // leases of an actor that says it failed when they are another's
  Duration actor_turn{}, broker_turn{}, learner_turn{};
  Disturbances disturbances;

  std::string Describe() const;  // a few lines
};
History DrawHistory(std::uint64_t seed);
// The same workload with nothing done to it: what its result is compared with.
History UndisturbedHistory(std::uint32_t workload);

}  // namespace thresher::sim
