#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "actor/tasks/options.h"
#include "common/base/hash.h"
#include "common/model/kernel_choice.h"
#include "common/model/model_folder.h"
#include "launch/commands.h"
#include "launch/compute.h"
#include "launch/evaluation.h"
#include "launch/policy.h"
#include "launch/progress.h"

namespace thresher::launch {
namespace {

using Json = nlohmann::ordered_json;

// The task's published shape as overrides.
std::vector<std::string> TaskDefaults(const std::string& task) {
  tasks::TaskOptions o = tasks::DefaultTaskOptions(task);
  auto number = [](const char* key, long long value) {
    return std::string(key) + "=" + std::to_string(value);
  };
  return {"task.name=" + task,
          number("task.numbers", o.numbers),
          number("task.max_number", o.max_number),
          number("task.min_target", o.min_target),
          number("task.max_target", o.max_target),
          std::string("task.use_all=") + (o.use_all ? "true" : "false")};
}

// The configuration whose task is evaluated: the run's, or the task's published shape.
Config ConfigOf(const EvalOptions& options, const ModelSource& source) {
  for (const std::string& text : options.overrides) {
    if (!text.starts_with("task.")) {
      throw ConfigError("--set " + text + ": allowed for eval: keys of the section task");
    }
  }
  if (source.run) {
    Config config = LoadConfig(*source.run / "config.yaml", options.overrides);
    if (options.task.empty() || options.task == config.task.name) return config;
  }
  std::string task = options.task.empty() ? "countdown" : options.task;
  std::vector<std::string> overrides = TaskDefaults(task);
  overrides.insert(overrides.end(), options.overrides.begin(), options.overrides.end());
  return ParseConfig("", "--task " + task, overrides);
}

Json EstimateJson(const broker::Estimate& e) {
  return {{"value", e.value}, {"low", e.low}, {"high", e.high}};
}

Json TaskJson(const TaskConfig& task) {
  return {{"name", task.name},
          {"numbers", task.numbers},
          {"max_number", task.max_number},
          {"min_target", task.min_target},
          {"max_target", task.max_target},
          {"use_all", task.use_all},
          {"heldout_fraction", task.heldout_fraction}};
}

Json ResultJson(const EvaluationResult& result, const std::vector<int>& ks) {
  Json pass = Json::object(), majority = Json::object();
  const broker::EvalResult solved = result.Solved();
  for (int k : ks) {
    auto size = static_cast<std::uint32_t>(k);
    pass[std::to_string(k)] = EstimateJson(broker::PassAtK(solved, size));
    majority[std::to_string(k)] = EstimateJson(MajorityAtK(result.items, size));
  }
  return {{"pass_at", pass},
          {"maj_at", majority},
          {"mean_reward", result.mean_reward},
          {"reasons", result.reasons},
          {"generated_tokens", result.generated_tokens}};
}

std::vector<int> WantedKs(const EvalOptions& options) {
  std::vector<int> ks = options.ks;
  if (ks.empty()) ks = {1, options.samples};
  std::sort(ks.begin(), ks.end());
  ks.erase(std::unique(ks.begin(), ks.end()), ks.end());
  if (ks.back() > options.samples) {
    throw ConfigError("--k " + std::to_string(ks.back()) + ": allowed: at most --samples (" +
                      std::to_string(options.samples) + ")");
  }
  return ks;
}

Result<Json> RunEvaluation(const EvalOptions& options, const std::vector<int>& ks) {
  THRESHER_ASSIGN_OR_RETURN(ModelSource source, FindModel(options.model));
  Config config = ConfigOf(options, source);
  config.run.seed = options.seed;
  THRESHER_ASSIGN_OR_RETURN(const std::string kernel_set, KernelSetOf(options.model));
  THRESHER_RETURN_IF_ERROR(model::ChooseKernelSet(kernel_set, "engine.kernel_set"));
  THRESHER_ASSIGN_OR_RETURN(const Device device, ChooseDevice(options.device, "--device"));
  THRESHER_ASSIGN_OR_RETURN(const LoadedPolicy policy, LoadPolicy(options.model));
  THRESHER_ASSIGN_OR_RETURN(const Hash128 weights_hash, model::FolderWeightsHash(source.folder));
  EvaluationSpec spec{
      static_cast<std::uint32_t>(options.items), static_cast<std::uint32_t>(options.samples),
      static_cast<float>(options.temperature),
      static_cast<std::uint32_t>(options.max_new_tokens > 0 ? options.max_new_tokens
                                                            : config.sampling.max_new_tokens)};
  const double total = double(spec.items) * spec.samples;
  ProgressDisplay display;
  auto start = std::chrono::steady_clock::now();
  auto result = Evaluate(policy, config, spec, device, [&](std::uint64_t done) {
    display.Update("sampled " + ShortNumber(double(done)) + "/" + ShortNumber(total));
  });
  if (!result.ok()) return result.status();
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  Json json = {{"model", source.folder.string()},
               {"weights_hash", weights_hash.ToString()},
               {"kernel_set", model::ChosenKernelSet()},
               {"device", device.ToString()},
               {"task", TaskJson(config.task)},
               {"split", "heldout"},
               {"items", spec.items},
               {"samples", spec.samples},
               {"temperature", spec.temperature},
               {"max_new_tokens", spec.max_new_tokens},
               {"seed", options.seed}};
  json.update(ResultJson(*result, ks));
  json["seconds"] = seconds;
  return json;
}

}  // namespace

int EvalCommand(const EvalOptions& options) {
  auto json = RunEvaluation(options, WantedKs(options));
  if (json.ok()) {
    std::cout << json->dump(2) << "\n";
    return kExitOk;
  }
  bool usage = json.status().code() == StatusCode::kNotFound ||
               json.status().code() == StatusCode::kInvalidArgument ||
               json.status().code() == StatusCode::kOutOfRange;
  return Report(json.status(), usage ? kExitUsage : kExitFailure);
}

}  // namespace thresher::launch
