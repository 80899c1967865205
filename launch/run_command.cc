#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/backend/gpus.h"
#include "common/model/run_context.h"
#include "launch/checkpoints.h"
#include "launch/commands.h"
#include "launch/estimate.h"
#include "launch/farm.h"
#include "launch/gpu_load.h"
#include "launch/progress.h"

namespace thresher::launch {
namespace {

using nlohmann::json;

std::filesystem::path NextRunDirectory(const std::string& name) {
  for (int number = 1;; ++number) {
    char suffix[16];
    std::snprintf(suffix, sizeof suffix, "-%03d", number);
    std::filesystem::path path = std::filesystem::path("runs") / (name + suffix);
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return std::filesystem::absolute(path);
  }
}

struct Control {
  std::string name;
  Config config;
};

// What metrics.jsonl says about the steps of a phase; a step that was trained again counts once.
struct PhaseSums {
  double tokens = 0, steps = 0;
  double first_time = 0, last_time = 0;                // wall clock, seconds
  double fetch_ms = 0, compute_ms = 0, reduce_ms = 0;  // of learner rank 0
};
PhaseSums SumsOfPhase(const std::filesystem::path& run, const std::string& phase) {
  PhaseSums sums;
  std::ifstream in(run / "metrics.jsonl");
  double last_step = -1;
  for (std::string line; std::getline(in, line);) {
    json entry = json::parse(line, nullptr, false);
    if (!entry.is_object() || entry.value("phase", "") != phase) continue;
    double step = entry.value("step", -1.0);
    if (step <= last_step) continue;
    last_step = step;
    sums.tokens += entry.value("trained_tokens", 0.0);
    sums.last_time = entry.value("time", 0.0);
    if (sums.steps == 0) sums.first_time = sums.last_time;
    sums.steps += 1;
    const json learner = entry.value("learner", json::object());
    sums.fetch_ms += learner.value("fetch_ms", 0.0);
    sums.compute_ms += learner.value("compute_ms", 0.0);
    sums.reduce_ms += learner.value("reduce_ms", 0.0);
  }
  return sums;
}

// The controls asked for, each a run of its own that branches off the supervised checkpoint.
std::vector<Control> ControlsOf(const std::filesystem::path& run, const Config& asked) {
  const Config config = model::WithKernelSetOf(LoadConfig(run / "config.yaml", {}), asked);
  char checkpoint[32];
  std::snprintf(checkpoint, sizeof checkpoint, "step_%06d", config.supervised.steps);
  Config base = config;
  base.controls = "none";
  base.model.init = (run / "checkpoints" / checkpoint).string();
  std::vector<Control> out;
  if (config.controls == "permuted" || config.controls == "all") {
    Control control{"permuted", base};
    control.config.run.name = config.run.name + "-permuted";
    control.config.supervised.steps = 0;
    control.config.rl.permute_rewards = true;
    control.config.rl.dynamic_sampling = false;
    control.config.rl.drop_zero_variance = false;  // the true rewards must select nothing
    out.push_back(control);
  }
  if (config.controls == "supervised" || config.controls == "all") {
    Control control{"supervised", base};
    PhaseSums rl = SumsOfPhase(run, "rl"), sft = SumsOfPhase(run, "supervised");
    double per_step = sft.steps > 0 ? sft.tokens / sft.steps : 1.0;
    control.config.run.name = config.run.name + "-supervised";
    control.config.run.seed = config.run.seed + 1000003;  // traces that were not seen before
    control.config.supervised.steps = static_cast<int>(rl.tokens / per_step + 0.5);
    control.config.supervised.warmup_steps = 0;
    control.config.rl.steps = 0;
    out.push_back(control);
  }
  return out;
}

const json* FindEval(const json& summary, const std::string& label) {
  for (const json& eval : summary["evals"]) {
    if (eval.value("label", "") == label) return &eval;
  }
  return nullptr;
}

void PrintEval(const std::string& name, const json* eval) {
  if (eval == nullptr) return;
  std::cerr << "  " << name << std::string(name.size() < 22 ? 22 - name.size() : 1, ' ');
  for (const auto& [k, estimate] : (*eval)["pass_at"].items()) {
    if (k != "1" && k != std::to_string(eval->value("samples", 0))) continue;
    std::cerr << "pass@" << k << " " << EstimateText(estimate) << "   ";
  }
  std::cerr << "(" << eval->value("items", 0) << " items x " << eval->value("samples", 0) << ")\n";
}

// Where the time of each phase went, as the learner saw it.
void PrintTimes(const std::filesystem::path& run) {
  for (const char* phase : {"supervised", "rl"}) {
    PhaseSums sums = SumsOfPhase(run, phase);
    double busy = sums.fetch_ms + sums.compute_ms + sums.reduce_ms;
    if (sums.steps == 0 || busy <= 0) continue;
    auto share = [&](double ms) { return std::to_string(std::lround(100 * ms / busy)) + " %"; };
    std::cerr << "  " << phase << " " << ShortDuration(sums.last_time - sums.first_time)
              << "  learner: waited for its batch " << share(sums.fetch_ms) << ", computed "
              << share(sums.compute_ms) << ", reduced " << share(sums.reduce_ms) << "\n";
  }
}

void PrintSummary(const std::filesystem::path& run, const json& summary, double seconds,
                  const std::vector<std::pair<std::string, json>>& controls) {
  std::cerr << "\nheld-out results, 95 % intervals\n";
  for (const json& eval : summary["evals"]) {
    if (eval.value("phase_end", false)) PrintEval(eval.value("label", ""), &eval);
  }
  for (const auto& [name, control] : controls) {
    PrintEval("control: " + name, FindEval(control, name == "permuted" ? "final" : "supervised"));
  }
  std::cerr << "conservation\n";
  for (const json& stream : summary["ledger"]["streams"]) {
    std::cerr << "  " << stream.value("stream", "") << ": " << stream.value("equation", "") << "\n";
  }
  const json& tokens = summary["tokens"];
  std::cerr << "mismatch " << tokens.value("mismatched", 0.0) << " of "
            << static_cast<long>(tokens.value("audited", 0.0)) << " audited tokens; staleness "
            << summary.value("staleness_max", 0) << "; nondeterministic "
            << summary.value("nondeterministic", 0) << "; held-out overlap "
            << summary.value("heldout_overlap", 0) << "\n";
  std::cerr << "time " << ShortDuration(seconds) << "\n";
  PrintTimes(run);
  std::cerr << "final weights " << summary["final"].value("hash", "") << "\n";
  std::string folder = std::filesystem::relative(run).string();
  std::cerr << "next: thresher replay " << folder << " --random 50   |   thresher audit " << folder
            << "   |   thresher trajectories " << folder << "\n";
}

// Prepares, runs and reports one farm. `summary` is filled when it finished.
int RunOne(const std::filesystem::path& run, const Config& config, json& summary) {
  auto lock = PrepareRunDirectory(run, config);
  if (!lock.ok()) {
    bool usage = lock.status().code() == StatusCode::kFailedPrecondition ||
                 lock.status().code() == StatusCode::kInvalidArgument ||
                 lock.status().code() == StatusCode::kAlreadyExists;
    return Report(lock.status(), usage ? kExitUsage : kExitFailure);
  }
  auto existing = ReadSummary(run);
  int code = kExitOk;
  if (existing.ok() && existing->value("finished", false)) {
    std::cerr << "already finished\n";
  } else {
    auto outcome = RunFarm(run, config);
    if (!outcome.ok()) {
      code = Report(outcome.status(), kExitFailure);
    } else if (outcome->end == FarmEnd::kFailed) {
      std::cerr << "thresher: the run failed\n  " << outcome->message << "\n";
      code = kExitFailure;
    } else if (outcome->end == FarmEnd::kStopped) {
      std::cerr << "stopped; " << outcome->message << "\n";
      code = kExitStopped;
    }
  }
  if (code == kExitOk) {
    existing = ReadSummary(run);
    if (!existing.ok()) code = Report(existing.status(), kExitFailure);
    if (existing.ok()) summary = *existing;
  }
  close(*lock);
  return code;
}

// Those of `--resume RUN` as if its configuration and --dir had been given.
Result<RunOptions> WithRunOf(RunOptions options) {
  if (options.resume.empty() && options.config.empty()) {
    return InvalidArgument("run: no CONFIG; allowed: CONFIG, or --resume RUN");
  }
  if (options.resume.empty()) return options;
  if (!IsRunDirectory(options.resume)) {
    return NotFound("--resume is " + options.resume +
                    "; allowed: a run directory (manifest.json, config.yaml)");
  }
  options.config = (std::filesystem::path(options.resume) / "config.yaml").string();
  options.directory = options.resume;
  return options;
}

// The command line that goes on with the run.
std::string Again(const RunOptions& options, const std::string& run) {
  std::string words = "thresher run ";
  words += options.resume.empty() ? options.config : "--resume " + run;
  for (const auto& text : options.overrides) words += " --set " + text;
  return options.resume.empty() ? words + " --dir " + run : words;
}

}  // namespace

int RunCommand(const RunOptions& asked) {
  const auto whole = WithRunOf(asked);
  if (!whole.ok()) return Report(whole.status(), kExitUsage);
  const RunOptions& options = *whole;
  Config config = LoadConfig(options.config, options.overrides);
  const auto environment = EnvironmentOf(config);
  CheckConsistency(config, *environment);
  RequireMemory(config, Estimate(config, *environment), MachineMemory());
  if (UsesGpus(config)) {
    const backend::Gpus gpus = backend::FindGpus();
    if (!gpus.status.ok()) return Report(gpus.status, kExitUsage);
    RequireGpus(config, Estimate(config, *environment), gpus);
  }
  BlockSignals();
  std::filesystem::path run = options.directory.empty()
                                  ? NextRunDirectory(config.run.name)
                                  : std::filesystem::absolute(options.directory);
  std::string shown = std::filesystem::relative(run).string();
  std::cerr << "run " << shown << "  seed " << config.run.seed << "  actors " << config.actors.count
            << "  learner ranks " << config.learner.ranks << "\n";
  auto start = std::chrono::steady_clock::now();
  json summary;
  int code = RunOne(run, config, summary);
  std::vector<std::pair<std::string, json>> controls;
  if (code == kExitOk) {
    for (const Control& control : ControlsOf(run, config)) {
      std::cerr << "control '" << control.name << "'\n";
      json result;
      code = RunOne(run / "controls" / control.name, control.config, result);
      if (code != kExitOk) break;
      controls.emplace_back(control.name, std::move(result));
    }
  }
  if (code == kExitStopped) std::cerr << "to go on: " << Again(options, shown) << "\n";
  if (code != kExitOk) return code;
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  PrintSummary(run, summary, seconds, controls);
  return kExitOk;
}

}  // namespace thresher::launch
