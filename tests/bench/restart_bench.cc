// How long a broker that is started again takes to know the state of its run, and in how much
// memory: writes the journal and the trajectories of a long run with small records, then recovers
// it in a process of its own.
//   restart_bench [--trajectories N] [--live N] [--limit-seconds S] [--limit-mib M] [--folder DIR]
// Prints JSON. Exit 1 when a limit is passed, or when more is read than what is live.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "broker/journal.h"
#include "broker/journal_keeper.h"
#include "broker/recovery.h"
#include "tests/bench/bench_report.h"
#include "tests/unit/broker/long_run.h"

namespace thresher::broker {
namespace {

namespace fs = std::filesystem;

constexpr int kSamples = 8;
constexpr int kGroups = 125;  // 1,000 samples a step

struct Arguments {
  std::uint64_t trajectories = 1000000;
  std::uint64_t live = 10000;
  double limit_seconds = 3;
  double limit_mib = 512;
  std::string folder;
  bool recover = false;  // the second half
};

Config ConfigOf(const Arguments& a) {
  const std::uint64_t steps = a.trajectories / (kGroups * kSamples);
  return TinyConfig({"supervised.steps=0", "rl.steps=" + std::to_string(steps + 1),
                     "rl.groups=" + std::to_string(kGroups),
                     "rl.group_size=" + std::to_string(kSamples), "eval.items=0",
                     "journal.mode=async"});
}

void Write(const Arguments& a, const fs::path& folder) {
  LongRun run(folder, ConfigOf(a));
  const auto steps = static_cast<std::uint32_t>(a.trajectories / (kGroups * kSamples));
  // What two checkpoints lie apart is remembered, and what came since.
  const auto apart =
      std::max<std::uint32_t>(1, static_cast<std::uint32_t>(a.live / (2 * kGroups * kSamples)));
  while (run.state().committed_steps() + 1 < steps) run.Step(apart);
  run.Issue(steps - 1);
  run.AcceptAll(steps - 1);
}

int Restart(const Arguments& a) {
  const fs::path folder = a.folder;
  const Config config = ConfigOf(a);
  Result<Recovered> recovered = Recovered{RunState(Plan(config))};
  Result<std::unique_ptr<Journal>> journal = NotFound("");
  const double seconds = bench::Seconds([&] {
    recovered = Recover(folder, Plan(config));
    journal = Journal::Open(folder, config.journal);
  });
  if (!recovered.ok() || !journal.ok()) {
    std::cerr << recovered.status().ToString() << "\n" << journal.status().ToString() << "\n";
    return 1;
  }
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  const double mib = static_cast<double>(usage.ru_maxrss) / 1024;
  const std::uint64_t live = recovered->state.dedup().remembered();
  const bool proportional = recovered->records <= 4 * a.live + 40000;
  nlohmann::json json = {{"name", "broker restart"},
                         {"trajectories", recovered->state.accepted()},
                         {"live", live},
                         {"journal_records", (*journal)->end().sequence},
                         {"records_applied", recovered->records},
                         {"stored_looked_at", recovered->stored},
                         {"seconds", seconds},
                         {"max_rss_mib", mib},
                         {"limit_seconds", a.limit_seconds},
                         {"limit_mib", a.limit_mib},
                         {"proportional_to_live", proportional}};
  std::cout << json.dump(2) << "\n";
  return seconds <= a.limit_seconds && mib <= a.limit_mib && proportional ? 0 : 1;
}

// In a new process, whose memory is the restart's alone.
int RestartApart(const Arguments& a, const fs::path& program, const fs::path& folder) {
  const std::string command =
      program.string() + " --recover --trajectories " + std::to_string(a.trajectories) +
      " --live " + std::to_string(a.live) + " --limit-seconds " + std::to_string(a.limit_seconds) +
      " --limit-mib " + std::to_string(a.limit_mib) + " --folder " + folder.string();
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int Main(const Arguments& a) {
  if (a.recover) return Restart(a);
  TemporaryFolder temporary;
  const fs::path folder = a.folder.empty() ? temporary.path() : fs::path(a.folder);
  const double seconds = bench::Seconds([&] { Write(a, folder); });
  std::cerr << "written in " << seconds << " s\n";
  return RestartApart(a, fs::read_symlink("/proc/self/exe"), folder);
}

}  // namespace
}  // namespace thresher::broker

int main(int argc, char** argv) {
  CLI::App app{"Time and memory of a broker's restart after a long run.", "restart_bench"};
  thresher::broker::Arguments arguments;
  app.add_option("--trajectories", arguments.trajectories)->check(CLI::Range(1000, 100000000));
  app.add_option("--live", arguments.live)->check(CLI::Range(1000, 1000000));
  app.add_option("--limit-seconds", arguments.limit_seconds);
  app.add_option("--limit-mib", arguments.limit_mib);
  app.add_option("--folder", arguments.folder, "where the run is written and kept");
  app.add_flag("--recover", arguments.recover, "the second half, on --folder");
  CLI11_PARSE(app, argc, argv);
  return thresher::broker::Main(arguments);
}
