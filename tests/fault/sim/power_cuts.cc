#include "tests/fault/sim/power_cuts.h"

#include <vector>

#include "tests/support/sim/end_check.h"

namespace thresher::sim {
namespace {

constexpr std::uint32_t kRuns = 3;  // workloads

// Everything that is written to a disk happens often: small segments, a snapshot at each
// checkpoint.
History DurableHistory(std::uint32_t workload) {
  History history = UndisturbedHistory(workload);
  history.config.journal.mode = "durable";
  history.config.journal.segment_bytes = 4096;
  history.config.journal.snapshot_records = 1;
  history.config.trajectories.keep_bytes = 1;
  history.config.checkpoint.every = 1;
  history.one_machine = workload % 2 == 0;
  return history;
}

struct Undisturbed {
  History history;
  RunResult result;
  std::uint64_t uses = 0;
};

Undisturbed RunUndisturbed(std::uint32_t workload, std::string* problems) {
  Undisturbed run{DurableHistory(workload), {}, 0};
  Trace trace;
  Farm farm(run.history, trace);
  *problems += farm.Run();
  auto result = ReadResult(Farm::kRun);
  if (!result.ok()) {
    *problems += "no result: " + result.status().ToString() + "\n";
    return run;
  }
  run.result = *result;
  *problems += CheckEnd(Farm::kRun, run.history.config, run.result);
  run.uses = farm.broker_disk_uses();
  return run;
}

// The same history up to the cut; what the disk keeps then is drawn from where its numbers stand.
std::string RunWithCut(const Undisturbed& run, std::uint64_t use) {
  History history = run.history;
  history.disturbances.power_cut_at_use = use;
  Trace trace;
  Farm farm(history, trace);
  std::string problems = farm.Run();
  if (problems.empty()) problems = CheckEnd(Farm::kRun, history.config, run.result);
  if (trace.counts().count("power cut") == 0) problems += "the power was never cut\n";
  return problems.empty() ? "" : history.Describe() + problems;
}

}  // namespace

PowerCuts CutPowerEverywhere(std::uint64_t points) {
  PowerCuts cuts;
  std::vector<Undisturbed> runs;
  for (std::uint32_t workload = 0; workload < kRuns; ++workload) {
    runs.push_back(RunUndisturbed(workload, &cuts.problems));
    cuts.uses += runs.back().uses;
  }
  if (!cuts.problems.empty()) return cuts;
  for (std::uint64_t i = 0; i < points; ++i) {
    std::uint64_t use = 1 + i * cuts.uses / points;
    std::size_t run = 0;
    while (use > runs[run].uses) use -= runs[run++].uses;
    cuts.problems += RunWithCut(runs[run], use);
    ++cuts.points;
  }
  return cuts;
}

}  // namespace thresher::sim
