#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "actor/engine/engine.h"
#include "common/model/forward.h"

namespace thresher::launch {

struct EngineBenchSpec {
  std::int32_t batch = 1;            // sequences at once
  std::int32_t prompt_tokens = 128;  // of each, random, no two alike
  std::int32_t new_tokens = 64;      // of each, sampled at temperature 1; at least 2
  std::uint64_t seed = 0;
};

// One round: all prompts at once, then decode steps until all sequences are complete.
struct EngineBenchRound {
  double prefill_seconds = 0;      // until every sequence has its first token
  double decode_seconds = 0;       // from there to the end
  double first_token_seconds = 0;  // until the first sequence has its first token
};

// What the model's products do for one token, and what a decode step must read for all its rows.
struct EngineWork {
  double product_flop_per_token = 0;  // 2 for every weight of a product, the head's included
  double weight_bytes = 0;            // of all products, as packed in `type`
};
EngineWork WorkOf(const model::ModelConfig& config, kernels::WeightType type);

// An engine that has `weights`.
using MakeBenchEngine = std::function<Result<actor::Engine>(const actor::EngineOptions&)>;

// Runs `rounds` rounds on one engine, after one that is not counted. The model's context holds
// prompt and new tokens (checked). Errors: the engine's.
Result<std::vector<EngineBenchRound>> BenchEngine(const EngineBenchSpec& spec, int rounds,
                                                  const MakeBenchEngine& make,
                                                  const model::PackedModel& weights);

}  // namespace thresher::launch
