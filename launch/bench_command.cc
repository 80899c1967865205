
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/backend/backend.h"
#include "common/base/build_info.h"
#include "common/model/kernel_choice.h"
#include "kernels/cpu/dispatch.h"
#include "launch/commands.h"
#include "launch/compute.h"
#include "launch/engine_bench.h"
#include "launch/policy.h"

namespace thresher::launch {
namespace {

using Json = nlohmann::ordered_json;

// {"median", "min", "max"} of a figure over the rounds.
template <class Figure>
Json Spread(const std::vector<EngineBenchRound>& rounds, Figure&& figure) {
  std::vector<double> values;
  for (const auto& round : rounds) values.push_back(figure(round));
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {{"median", median}, {"min", values.front()}, {"max", values.back()}};
}

// Greatest resident memory of this program. Not getrusage's, which begins with that of the process
// that started it.
double PeakMiB() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  }
  return 0;
}

Json Row(const EngineBenchSpec& spec, const EngineWork& work,
         const std::vector<EngineBenchRound>& rounds) {
  const double batch = spec.batch;
  const double prefill_tokens = batch * spec.prompt_tokens;
  const double decode_tokens = batch * (spec.new_tokens - 1);
  const auto prefill = [&](const EngineBenchRound& r) {
    return prefill_tokens / r.prefill_seconds;
  };
  const auto decode = [&](const EngineBenchRound& r) { return decode_tokens / r.decode_seconds; };
  const auto first = [](const EngineBenchRound& r) { return r.first_token_seconds; };
  const auto arithmetic = [&](const EngineBenchRound& r) {
    return decode(r) * work.product_flop_per_token / 1e9;
  };
  const auto bytes = [&](const EngineBenchRound& r) {
    return decode(r) / batch * work.weight_bytes / 1e9;
  };
  Json row = {{"batch", spec.batch},
              {"prompt_tokens", spec.prompt_tokens},
              {"new_tokens", spec.new_tokens},
              {"prefill_tokens_per_s", Spread(rounds, prefill)},
              {"decode_tokens_per_s", Spread(rounds, decode)},
              {"first_token_s", Spread(rounds, first)},
              {"decode_product_gflops", Spread(rounds, arithmetic)},
              {"decode_weight_gbytes_per_s", Spread(rounds, bytes)},
              {"peak_mib", PeakMiB()}};
  const std::size_t gpu_bytes = backend::GpuMemoryTaken().most;
  if (gpu_bytes > 0) row["gpu_peak_mib"] = static_cast<double>(gpu_bytes) / (1 << 20);
  return row;
}

}  // namespace

int BenchEngineCommand(const BenchEngineOptions& options) {
  auto pool = SetUpCompute(options.compute, options.model);
  if (!pool.ok()) return Report(pool.status(), kExitUsage);
  auto policy = LoadPolicy(options.model, {.widen_weights = options.widen_weights});
  if (!policy.ok()) return Report(policy.status(), kExitUsage);
  const model::ModelConfig& config = policy->weights->config();
  if (options.prompt_tokens + options.new_tokens > config.context) {
    return Report(OutOfRange("--prompt-tokens and --new-tokens: together " +
                             std::to_string(options.prompt_tokens + options.new_tokens) +
                             "; allowed: at most " + std::to_string(config.context) +
                             ", the model's context"),
                  kExitUsage);
  }
  const EngineWork work = WorkOf(config, policy->weights->weight_type());
  Json out = {{"model", policy->folder.string()},
              {"revision", GetBuildInfo().revision},
              {"kernel_set", model::ChosenKernelSet()},
              {"device", options.compute.device},
              {"variant", kernels::CpuVariantName(kernels::ActiveCpuVariant())},
              {"weight_type", kernels::WeightTypeName(policy->weights->weight_type())},
              {"threads", (*pool)->threads()},
              {"product_flop_per_token", work.product_flop_per_token},
              {"weight_bytes", work.weight_bytes},
              {"loaded_peak_mib", PeakMiB()},
              {"rows", Json::array()}};
  for (int batch : options.batches) {
    const EngineBenchSpec spec{batch, options.prompt_tokens, options.new_tokens, options.seed};
    const auto make = [&](const actor::EngineOptions& engine) {
      return MakeEngine(options.compute, **pool, *policy, engine);
    };
    const auto rounds = BenchEngine(spec, options.rounds, make, *policy->weights);
    if (!rounds.ok()) return Report(rounds.status(), kExitFailure);
    out["rows"].push_back(Row(spec, work, *rounds));
    std::cerr << "batch " << batch << ": "
              << out["rows"].back()["decode_tokens_per_s"]["median"].get<double>()
              << " tokens/s decoded\n";
  }
  std::cout << out.dump(2) << std::endl;
  return kExitOk;
}

}  // namespace thresher::launch
