#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace thresher::launch {

// The sub-commands of `thresher`. Each prints what machines read to standard output, everything
// else to standard error, and returns the exit code: 0 done, 1 the thing asked for does not hold, 2
// bad configuration or usage, 3 failure while running, 75 stopped after a checkpoint. Each may
// throw ConfigError (caught in main).
inline constexpr int kExitOk = 0, kExitDoesNotHold = 1, kExitUsage = 2, kExitFailure = 3,
                     kExitStopped = 75;

struct RunOptions {
  std::string config;                  // file
  std::vector<std::string> overrides;  // "a.b=c"
  std::string directory;               // empty: runs/<run.name>-NNN
};
int RunCommand(const RunOptions& options);
int CheckCommand(const RunOptions& options);

struct ReplayOptions {
  std::string run;
  std::vector<std::string> ids;  // trajectory ids
  int random = 0;                // instead of ids: this many, chosen by `seed`
  std::uint64_t seed = 0;
  std::string against;  // compare with the records of this run directory instead
  bool json = false;
};
int ReplayCommand(const ReplayOptions& options);

struct AuditOptions {
  std::string run;
  bool json = false;
};
int AuditCommand(const AuditOptions& options);

struct EvalOptions {
  std::string model;                   // checkpoint or model folder, or run directory
  std::string task;                    // empty: the run's
  std::vector<std::string> overrides;  // "task.numbers=4"
  int items = 400;
  int samples = 8;
  std::vector<int> ks;  // empty: 1 and `samples`
  double temperature = 1.0;
  int max_new_tokens = 0;  // 0: the run's
  std::uint64_t seed = 0;
};
int EvalCommand(const EvalOptions& options);

struct SolveOptions {
  std::string task;
  bool count = false;
  bool list = false;
  std::int64_t target = 0;
  std::vector<std::int64_t> numbers;
};
int SolveCommand(const SolveOptions& options);

struct TrajectoriesOptions {
  std::string run;
  std::string show;    // one id; empty: list
  std::string stream;  // filters of the list
  std::string reason;
  std::int64_t item = -1;
  int limit = 20;
  bool json = false;
};
int TrajectoriesCommand(const TrajectoriesOptions& options);

struct StatusOptions {
  std::string run;  // run directory, or http://host:port/?token=TOKEN
  bool json = false;
};
int StatusCommand(const StatusOptions& options);

int DoctorCommand();

// "thresher: message" on standard error; returns `code`.
int Report(const Status& status, int code);

}  // namespace thresher::launch
