// The `thresher` command: its sub-commands and options.
#include <CLI/CLI.hpp>
#include <exception>
#include <functional>
#include <iostream>

#include "common/base/build_info.h"
#include "common/config/config.h"
#include "kernels/cpu/dispatch.h"
#include "launch/commands.h"
#include "launch/model_options.h"

namespace thresher::launch {
namespace {

using Command = std::function<int()>;

// An option that may be repeated and takes one value each time.
void AddRepeated(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                 const std::string& help) {
  app.add_option(name, values, help)->allow_extra_args(false)->type_name("A.B=C");
}

CLI::App* AddRun(CLI::App& app, RunOptions& options) {
  CLI::App* sub = app.add_subcommand("run", "Runs CONFIG on this machine, with progress");
  auto* config = sub->add_option("config", options.config, "Configuration file");
  config->type_name("CONFIG");
  AddRepeated(*sub, "--set", options.overrides, "Overrides one key of the configuration");
  auto* directory = sub->add_option("--dir", options.directory,
                                    "Run directory, new or to go on with; default: runs/NAME-NNN");
  sub->add_option("--resume", options.resume,
                  "Goes on with this run directory, as it was configured, but for --set")
      ->type_name("RUN")
      ->excludes(config)
      ->excludes(directory);
  return sub;
}

CLI::App* AddCheck(CLI::App& app, RunOptions& options) {
  CLI::App* sub = app.add_subcommand(
      "check", "Resolved configuration, processes, memory, disk, replay window; changes nothing");
  sub->add_option("config", options.config, "Configuration file")->required()->type_name("CONFIG");
  AddRepeated(*sub, "--set", options.overrides, "Overrides one key of the configuration");
  return sub;
}

CLI::App* AddReplay(CLI::App& app, ReplayOptions& options) {
  CLI::App* sub = app.add_subcommand("replay", "Generates kept trajectories again and compares");
  sub->add_option("run", options.run, "Run directory")->required()->type_name("RUN");
  auto* ids = sub->add_option("id", options.ids, "Trajectory ids, stream/island/item/sample");
  sub->add_option("--random", options.random, "This many, chosen at random, instead of ids")
      ->check(CLI::Range(1, 1000000000))
      ->excludes(ids);
  sub->add_option("--seed", options.seed, "Seed of that choice");
  sub->add_option("--against", options.against, "Compare with the records of this run directory");
  sub->add_flag("--json", options.json, "One JSON object a line");
  AddDevice(*sub, options.device);
  return sub;
}

CLI::App* AddAudit(CLI::App& app, AuditOptions& options) {
  CLI::App* sub = app.add_subcommand("audit", "Proves conservation and staleness from the files");
  sub->add_option("run", options.run, "Run directory")->required()->type_name("RUN");
  sub->add_flag("--json", options.json, "JSON on standard output");
  return sub;
}

CLI::App* AddEval(CLI::App& app, EvalOptions& options) {
  CLI::App* sub = app.add_subcommand("eval", "pass@k and maj@k on held-out items; JSON");
  sub->add_option("model", options.model, "Checkpoint folder, or run directory (newest checkpoint)")
      ->required()
      ->type_name("MODEL");
  sub->add_option("--task", options.task, "countdown or digits; default: the run's");
  AddRepeated(*sub, "--set", options.overrides, "A key of the task, for example task.numbers=4");
  sub->add_option("--items", options.items, "Held-out items")->check(CLI::Range(1, 10000000));
  sub->add_option("--samples", options.samples, "Samples of each item")
      ->check(CLI::Range(1, 65536));
  sub->add_option("--k", options.ks, "Values of k, at most --samples: 1,8")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 65536));
  sub->add_option("--temperature", options.temperature, "0: greedy")->check(CLI::Range(0.0, 100.0));
  sub->add_option("--max-new-tokens", options.max_new_tokens, "Longest answer; default: the run's")
      ->check(CLI::Range(1, 1048576));
  sub->add_option("--seed", options.seed, "Seed of items and samples");
  AddDevice(*sub, options.device);
  return sub;
}

CLI::App* AddSolve(CLI::App& app, SolveOptions& options) {
  CLI::App* sub = app.add_subcommand("solve", "Exact reference solver of a task");
  sub->add_option("task", options.task, "digits or countdown")->required()->type_name("TASK");
  auto* count = sub->add_flag("--count", options.count, "Number of solutions");
  sub->add_flag("--list", options.list, "All solutions, one a line")->excludes(count);
  sub->add_option("--target", options.target, "The number to reach")->required();
  sub->add_option("numbers", options.numbers, "The given numbers")->required();
  return sub;
}

CLI::App* AddTrajectories(CLI::App& app, TrajectoriesOptions& options,
                          std::vector<std::string>& words) {
  CLI::App* sub =
      app.add_subcommand("trajectories", "Lists kept trajectories, exports them, or shows one");
  sub->add_option("run", options.run, "Run directory")->required()->type_name("RUN");
  sub->add_option("action", words, "list (default), export: whole records as JSONL, or: show ID")
      ->expected(0, 2);
  sub->add_option("--stream", options.stream, "Only this stream: train, supervised, eval, ...");
  sub->add_option("--step", options.step, "Only of these steps' policy versions")
      ->type_name("FROM:TO");
  sub->add_option("--reward", options.reward, "Only with such a reward")->type_name("FROM:TO");
  sub->add_option("--length", options.length, "Only of so many tokens")->type_name("FROM:TO");
  sub->add_option("--outcome", options.outcome, "Only this grader's outcome: scored, ...");
  sub->add_option("--reason", options.reason, "Only this grader's reason: solved, ...");
  sub->add_option("--item", options.item, "Only this item")->check(CLI::NonNegativeNumber);
  sub->add_option("--prompt", options.prompt, "Only prompts whose hash begins so");
  sub->add_option("--actor", options.actor, "Only of this actor")->check(CLI::NonNegativeNumber);
  sub->add_option("--limit", options.limit, "At most this many; 0: all; default of list: 20")
      ->check(CLI::NonNegativeNumber);
  sub->add_flag("--json", options.json, "JSON on standard output");
  return sub;
}

CLI::App* AddExport(CLI::App& app, ExportOptions& options) {
  CLI::App* sub =
      app.add_subcommand("export", "Writes a checkpoint as a Hugging Face model folder");
  sub->add_option("model", options.model, "Checkpoint folder, or run directory (newest checkpoint)")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  sub->add_option("--to", options.to, "The folder: a new one, or an empty one")->required();
  sub->add_option("--dtype", options.dtype,
                  "float32 or bfloat16; default: as it is stored. float32 of a run with 16-bit "
                  "weights are its masters");
  sub->add_flag("--adapter", options.adapter,
                "The adapters alone, as PEFT reads them, and in base/ the model that they are for");
  return sub;
}

CLI::App* AddKeygen(CLI::App& app, KeygenOptions& options) {
  CLI::App* sub = app.add_subcommand("keygen", "Makes the keys of a run's processes; JSON");
  sub->add_option("folder", options.folder, "RUN/keys, or where they are carried from")
      ->required()
      ->type_name("FOLDER");
  sub->add_option("--role", options.roles, "Only this one: broker, actor, learner, tool")
      ->allow_extra_args(false)
      ->check(CLI::IsMember(std::vector<std::string>{"broker", "actor", "learner", "tool"}));
  sub->add_flag("--force", options.force, "Replaces keys that are there");
  return sub;
}

CLI::App* AddStatus(CLI::App& app, StatusOptions& options) {
  CLI::App* sub = app.add_subcommand("status", "How a run stands");
  sub->add_option("run", options.run,
                  "Run directory, or http://HOST:PORT/?token=TOKEN of its broker")
      ->required()
      ->type_name("RUN|ADDRESS");
  sub->add_flag("--json", options.json, "The broker's status, or the summary, as it is");
  return sub;
}

int PrintVersion() {
  const BuildInfo& build = GetBuildInfo();
  std::cout << "thresher " << build.version << " (" << build.revision << ", " << build.build_type
            << ", " << build.compiler << ")\nkernel sets";
  for (kernels::KernelSet set : kernels::kKernelSets) {
    std::cout << " " << kernels::KernelSetName(set)
              << (kernels::KernelSetNative(set) ? "" : " (not native here)");
  }
  std::cout << "\nvariants";
  for (kernels::CpuVariant v : kernels::kCpuVariants) {
    if (kernels::CpuVariantAvailable(v)) std::cout << " " << kernels::CpuVariantName(v);
  }
  std::cout << " (used: " << kernels::CpuVariantName(kernels::ActiveCpuVariant()) << ")\n";
  return kExitOk;
}

int UsageError(const std::string& text) {
  std::cerr << "thresher: " << text << "\nRun with --help for more information.\n";
  return kExitUsage;
}

int ShowOrList(TrajectoriesOptions& options, const std::vector<std::string>& words) {
  if (words.empty() || (words.size() == 1 && words[0] == "list")) {
    return TrajectoriesCommand(options);
  }
  if (words.size() == 1 && words[0] == "export") {
    options.action = TrajectoriesOptions::Action::kExport;
    return TrajectoriesCommand(options);
  }
  if (words.size() != 2 || words[0] != "show") {
    return UsageError("trajectories: allowed after RUN: list, export, or show ID");
  }
  options.action = TrajectoriesOptions::Action::kShow;
  options.show = words[1];
  return TrajectoriesCommand(options);
}

struct AllOptions {
  RunOptions run, check;
  ReplayOptions replay;
  AuditOptions audit;
  EvalOptions eval;
  SolveOptions solve;
  TrajectoriesOptions trajectories;
  std::vector<std::string> trajectory_words;
  KeygenOptions keygen;
  ExportOptions exported;
  StatusOptions status;
  GenerateOptions generate;
  ScoreOptions score;
  InitOptions init;
  BenchEngineOptions bench_engine;
  bool version = false;
};

int Main(int argc, char** argv) {
  // Streams with buffers of their own: they tell how much input is there already.
  std::ios::sync_with_stdio(false);
  CLI::App app{"Thresher: reinforcement learning with verifiable rewards, as a farm of processes.",
               "thresher"};
  AllOptions o;
  std::vector<std::pair<CLI::App*, Command>> commands = {
      {AddRun(app, o.run), [&] { return RunCommand(o.run); }},
      {AddCheck(app, o.check), [&] { return CheckCommand(o.check); }},
      {AddStatus(app, o.status), [&] { return StatusCommand(o.status); }},
      {AddReplay(app, o.replay), [&] { return ReplayCommand(o.replay); }},
      {AddAudit(app, o.audit), [&] { return AuditCommand(o.audit); }},
      {AddEval(app, o.eval), [&] { return EvalCommand(o.eval); }},
      {AddGenerate(app, o.generate), [&] { return GenerateCommand(o.generate); }},
      {AddScore(app, o.score), [&] { return ScoreCommand(o.score); }},
      {AddInit(app, o.init), [&] { return InitCommand(o.init); }},
      {AddBenchEngine(app, o.bench_engine), [&] { return BenchEngineCommand(o.bench_engine); }},
      {AddTrajectories(app, o.trajectories, o.trajectory_words),
       [&] { return ShowOrList(o.trajectories, o.trajectory_words); }},
      {AddExport(app, o.exported), [&] { return ExportCommand(o.exported); }},
      {AddKeygen(app, o.keygen), [&] { return KeygenCommand(o.keygen); }},
      {AddSolve(app, o.solve), [&] { return SolveCommand(o.solve); }},
      {app.add_subcommand("doctor", "What this machine has and lacks, with remedies"),
       [] { return DoctorCommand(); }}};
  app.add_flag("--version", o.version, "Revision, build and kernel sets");
  app.require_subcommand(0, 1);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    bool help = error.get_exit_code() == 0;
    app.exit(error, help ? std::cout : std::cerr, std::cerr);
    return help ? kExitOk : kExitUsage;
  }
  if (o.version) return PrintVersion();
  for (const auto& [sub, command] : commands) {
    if (sub->parsed()) return command();
  }
  std::cerr << app.help();
  return kExitUsage;
}

}  // namespace
}  // namespace thresher::launch

int main(int argc, char** argv) {
  try {
    return thresher::launch::Main(argc, argv);
  } catch (const thresher::ConfigError& error) {
    std::cerr << "thresher: " << error.what() << "\n";
    return thresher::launch::kExitUsage;
  } catch (const std::exception& error) {
    std::cerr << "thresher: " << error.what() << "\n";
    return thresher::launch::kExitFailure;
  }
}
