// simulate: whole runs of the farm in simulation, one for each seed.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "tests/fault/sim/jobs.h"
#include "tests/fault/sim/power_cuts.h"
#include "tests/fault/sim/report.h"

namespace thresher::sim {
namespace {

struct Arguments {
  std::string seeds = "1-100";
  int jobs = 1;
  std::string json;
  int limit_s = 0;              // no further histories after this time
  int failures = 10;            // after which the sweep ends
  std::uint64_t at_least = 0;   // times that each fault is to occur
  bool expect_failure = false;  // a bug is planted
  bool trace = false;
  std::uint64_t power_cuts = 0;  // instead of drawn histories
};

// "A-B" or "A", and more of them behind commas; empty when it is nothing of the kind.
std::vector<std::uint64_t> ParseSeeds(const std::string& text) {
  std::vector<std::uint64_t> seeds;
  std::istringstream ranges(text);
  for (std::string range; std::getline(ranges, range, ',');) {
    unsigned long long first = 0, last = 0;
    int length = 0;
    const int fields = std::sscanf(range.c_str(), "%llu%n-%llu%n", &first, &length, &last, &length);
    if (fields < 1 || static_cast<std::size_t>(length) != range.size()) return {};
    if (fields == 1) last = first;
    for (unsigned long long seed = first; seed <= last; ++seed) seeds.push_back(seed);
  }
  return seeds;
}

void PrintFailure(const HistoryOutcome& outcome, const char* program) {
  std::cout << DrawHistory(outcome.seed).Describe() << outcome.problems
            << "repeat it with: " << program << " --trace --seeds " << outcome.seed << "\n\n"
            << std::flush;
}

// Every seed in this process, with everything that happens, then once more without: the two must
// be the same history.
int RunTraced(const std::vector<std::uint64_t>& seeds) {
  SetUpProcess();
  Sweep sweep;
  int code = 0;
  for (std::uint64_t seed : seeds) {
    std::cout << DrawHistory(seed).Describe();
    const HistoryOutcome outcome =
        sweep.Run(seed, [](const std::string& line) { std::cout << line << "\n"; });
    const HistoryOutcome again = sweep.Run(seed);
    std::cout << outcome.events << " events, hash " << outcome.hash << "\n" << outcome.problems;
    if (again.hash != outcome.hash) std::cout << "the same seed gave another history\n";
    if (!outcome.problems.empty() || again.hash != outcome.hash) code = 1;
  }
  return code;
}

int RunPowerCuts(std::uint64_t points) {
  SetUpProcess();
  const PowerCuts cuts = CutPowerEverywhere(points);
  std::cout << "power cut at " << cuts.points << " of the broker's " << cuts.uses
            << " uses of the disk\n"
            << cuts.problems;
  return cuts.problems.empty() && cuts.points == points ? 0 : 1;
}

int Main(const Arguments& arguments, const char* program) {
  if (arguments.power_cuts > 0) return RunPowerCuts(arguments.power_cuts);
  const std::vector<std::uint64_t> seeds = ParseSeeds(arguments.seeds);
  if (seeds.empty()) {
    std::cerr << "--seeds " << arguments.seeds << ": allowed: A, A-B, or several with commas\n";
    return 2;
  }
  if (arguments.trace) return RunTraced(seeds);
  Report report;
  const auto begin = std::chrono::steady_clock::now();
  RunInJobs(seeds, arguments.jobs, [&](const HistoryOutcome& outcome) {
    report.Add(outcome);
    if (!outcome.problems.empty()) PrintFailure(outcome, program);
    if (arguments.expect_failure) return report.failures().empty();
    const auto time = std::chrono::steady_clock::now() - begin;
    const bool late = arguments.limit_s > 0 && time >= std::chrono::seconds(arguments.limit_s);
    return !late && report.failures().size() < static_cast<std::size_t>(arguments.failures);
  });
  std::cout << report.Text();
  if (!arguments.json.empty()) std::ofstream(arguments.json) << report.Json();
  const std::string seldom = report.Seldom(arguments.at_least);
  if (!seldom.empty()) {
    std::cout << "less often than " << arguments.at_least << " times:\n" << seldom;
  }
  if (!arguments.expect_failure) return report.failures().empty() && seldom.empty() ? 0 : 1;
  std::cout << (report.failures().empty() ? "the planted bug was not found\n"
                                          : "the planted bug was found\n");
  return report.failures().empty() ? 1 : 0;
}

}  // namespace
}  // namespace thresher::sim

int main(int argc, char** argv) {
  CLI::App app{
      "Whole runs of the farm in simulation, one for each seed. Exit 0 when every promise "
      "was kept, 1 when not.",
      "simulate"};
  thresher::sim::Arguments arguments;
  app.add_option("--seeds", arguments.seeds, "A, A-B, or several with commas (1-100)");
  app.add_option("--jobs", arguments.jobs, "processes that share the work")
      ->check(CLI::Range(1, 256));
  app.add_option("--json", arguments.json, "file for the report");
  app.add_option("--limit", arguments.limit_s,
                 "seconds after which no further result is waited for");
  app.add_option("--failures", arguments.failures, "failed histories after which the sweep ends");
  app.add_option("--at-least", arguments.at_least,
                 "exit 1 when a fault, or a death at a crash point, occurs less often");
  app.add_flag("--expect-failure", arguments.expect_failure,
               "a bug is planted: exit 0 at the first failed history, 1 when there is none");
  app.add_flag("--trace", arguments.trace,
               "print everything that happens, and run each seed twice");
  app.add_option("--power-cuts", arguments.power_cuts,
                 "instead: cut the power at this many of the broker's uses of the disk");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return thresher::sim::Main(arguments, argv[0]);
}
