#include "tests/support/sim/sweep.h"

#include <ctime>

namespace thresher::sim {
namespace {

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

const RunResult& Sweep::Expected(std::uint32_t workload, std::string* problems) {
  auto [entry, added] = expected_.try_emplace(workload);
  if (!added) return entry->second;
  Trace trace;
  Farm farm(UndisturbedHistory(workload), trace);
  *problems += farm.Run();
  auto result = ReadResult(Farm::kRun);
  if (result.ok()) {
    entry->second = *result;
    *problems += CheckEnd(Farm::kRun, WorkloadConfig(workload), *result);
  } else {
    *problems += "no result: " + result.status().ToString() + "\n";
  }
  if (!problems->empty()) *problems = "the undisturbed run:\n" + *problems;
  return entry->second;
}

HistoryOutcome Sweep::Run(std::uint64_t seed, Trace::Reader reader) {
  const History history = DrawHistory(seed);
  HistoryOutcome outcome;
  outcome.seed = seed;
  const RunResult expected = Expected(history.workload, &outcome.problems);
  if (!outcome.problems.empty()) return outcome;
  const double begin = CpuSeconds();
  Trace trace(std::move(reader));
  Farm farm(history, trace);
  outcome.problems = farm.Run();
  if (outcome.problems.empty()) {
    outcome.problems = CheckEnd(Farm::kRun, history.config, expected);
  }
  outcome.hash = trace.hash();
  outcome.events = trace.events();
  outcome.virtual_seconds =
      std::chrono::duration<double>(farm.scheduler().Now().time_since_epoch()).count();
  outcome.counts = {trace.counts().begin(), trace.counts().end()};
  outcome.counts["samples acknowledged"] = farm.promises().accepted();
  outcome.cpu_seconds = CpuSeconds() - begin;
  return outcome;
}

}  // namespace thresher::sim
