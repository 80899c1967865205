#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "launch/compute.h"

namespace thresher::launch {

// The sub-commands of `thresher`. Each prints what machines read to standard output, everything
// else to standard error, and returns the exit code: 0 done, 1 the thing asked for does not hold, 2
// bad configuration or usage, 3 failure while running, 75 stopped after a checkpoint. Each may
// throw ConfigError (caught in main).
inline constexpr int kExitOk = 0, kExitDoesNotHold = 1, kExitUsage = 2, kExitFailure = 3,
                     kExitStopped = 75;

struct RunOptions {
  std::string config;                  // file; empty: that of `resume`
  std::vector<std::string> overrides;  // "a.b=c"
  std::string directory;               // empty: runs/<run.name>-NNN
  std::string resume;                  // run directory to go on with, as it was configured
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
  std::string device = "auto";  // see ChooseDevice
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
  std::string device = "auto";  // see ChooseDevice
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
  enum class Action { kList, kShow, kExport };
  std::string run;
  Action action = Action::kList;
  std::string show;  // kShow: the id
  // Filters (launch/trajectory_filter.h); empty: all.
  std::string stream, reason, outcome, prompt;
  std::string step, reward, length;  // ranges
  std::optional<std::uint64_t> item, actor;
  std::optional<int> limit;  // 0: all; kList: 20 where nothing is said
  bool json = false;
};
int TrajectoriesCommand(const TrajectoriesOptions& options);

struct KeygenOptions {
  std::string folder;              // RUN/keys
  std::vector<std::string> roles;  // empty: all
  bool force = false;              // replaces keys that are there
};
int KeygenCommand(const KeygenOptions& options);

struct ExportOptions {
  std::string model;  // checkpoint or model folder, or run directory
  std::string to;     // new or empty folder
  std::string dtype;  // float32 | bfloat16; empty: as it is stored
  bool adapter = false;
};
int ExportCommand(const ExportOptions& options);

struct StatusOptions {
  std::string run;  // run directory, or http://host:port/?token=TOKEN
  bool json = false;
};
int StatusCommand(const StatusOptions& options);

struct GenerateOptions {
  std::string model;
  std::vector<std::string> prompts;  // texts
  std::string prompt_file;           // JSONL; "-": standard input
  bool chat = false;                 // texts are a user's messages
  std::string system;                // before them
  std::string chat_template;         // by name; empty: the model's own
  bool no_thinking = false;          // qwen3
  std::string date;                  // llama3.1, llama3.2
  int samples = 1;                   // of each prompt
  std::uint64_t seed = 0;
  // Where nothing is given: generation_config.json, then neutral values.
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  int max_new_tokens = 0;  // 0: the model's recommendation, else 256 or what the context leaves
  std::vector<std::string> stop;
  bool ignore_eos = false;
  int top_logprobs = 0;
  int max_batch = 32;
  int kv_pages = 0;  // 0: enough for max_batch sequences of full context
  bool json = false;
  ComputeOptions compute;
};
int GenerateCommand(const GenerateOptions& options);

struct ScoreOptions {
  std::string model;
  double temperature = 1.0;
  ComputeOptions compute;
};
int ScoreCommand(const ScoreOptions& options);

struct InitOptions {
  std::string shape;  // folder with config.json, and with the tokenizer's files if it has them
  std::string out;    // folder to make
  std::uint64_t seed = 0;
  double standard_deviation = 0.02;
  std::string dtype;  // empty: config.json's
};
int InitCommand(const InitOptions& options);

struct BenchEngineOptions {
  std::string model;
  std::vector<int> batches = {1, 8, 32};
  int prompt_tokens = 128;
  int new_tokens = 64;
  int rounds = 3;
  std::uint64_t seed = 0;
  bool widen_weights = false;
  ComputeOptions compute;
};
int BenchEngineCommand(const BenchEngineOptions& options);

int DoctorCommand();

// "thresher: message" on standard error; returns `code`.
int Report(const Status& status, int code);

}  // namespace thresher::launch
