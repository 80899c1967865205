#include "launch/engine_bench.h"

#include <chrono>

#include "actor/engine/engine.h"
#include "common/base/check.h"
#include "common/base/random.h"

namespace thresher::launch {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<std::int32_t> RandomPrompt(const TrajectoryId& id, std::uint64_t seed,
                                       std::int32_t count, std::int32_t vocab) {
  RandomSequence random(seed, id, RandomPurpose::kTask);
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.Below(static_cast<std::uint64_t>(vocab))));
  }
  return tokens;
}

void SubmitAll(actor::Engine& engine, const EngineBenchSpec& spec, std::int32_t vocab,
               std::uint64_t round) {
  for (std::int32_t i = 0; i < spec.batch; ++i) {
    actor::GenerationRequest request;
    request.id = {Stream::kUser, 0, round, static_cast<std::uint32_t>(i)};
    request.prompt = RandomPrompt(request.id, spec.seed, spec.prompt_tokens, vocab);
    request.sampling.max_new_tokens = static_cast<std::uint32_t>(spec.new_tokens);
    request.run_seed = spec.seed;
    const Status status = engine.Submit(std::move(request));
    THRESHER_CHECK(status.ok(), status.ToString());
  }
}

Result<EngineBenchRound> RunRound(actor::Engine& engine, const EngineBenchSpec& spec) {
  EngineBenchRound round;
  const auto batch = static_cast<std::size_t>(spec.batch);
  const Clock::time_point start = Clock::now();
  std::size_t begun = 0;
  while (begun < batch) {
    THRESHER_RETURN_IF_ERROR(engine.Step().status());
    for (const auto& fresh : engine.fresh_tokens()) {
      begun += fresh.position == static_cast<std::uint32_t>(spec.prompt_tokens);
    }
    if (round.first_token_seconds == 0 && begun > 0) {
      round.first_token_seconds = SecondsSince(start);
    }
  }
  round.prefill_seconds = SecondsSince(start);
  while (engine.load() > 0) THRESHER_RETURN_IF_ERROR(engine.Step().status());
  round.decode_seconds = SecondsSince(start) - round.prefill_seconds;
  return round;
}

}  // namespace

EngineWork WorkOf(const model::ModelConfig& config, kernels::WeightType type) {
  const double width = config.width, ffn = config.ffn_width;
  const double layer = width * (2.0 * config.q_width() + 2.0 * config.kv_width() + 3.0 * ffn);
  const double weights = layer * config.layers + width * config.vocab;
  return {2 * weights, weights * static_cast<double>(kernels::WeightBytes(type))};
}

Result<std::vector<EngineBenchRound>> BenchEngine(const EngineBenchSpec& spec, int rounds,
                                                  const MakeBenchEngine& make,
                                                  const model::PackedModel& weights) {
  THRESHER_CHECK(spec.new_tokens >= 2 && spec.batch >= 1 && spec.prompt_tokens >= 1,
                 "nothing to measure");
  actor::EngineOptions options;
  options.max_batch = spec.batch;
  const std::int32_t positions = spec.prompt_tokens + spec.new_tokens;
  options.kv_pages = spec.batch * ((positions + 15) / 16 + 1);
  // The whole of the prompts in steps that a server would take.
  options.prefill_chunk = 512;
  options.prefix_sharing = false;
  THRESHER_ASSIGN_OR_RETURN(actor::Engine engine, make(options));
  std::vector<EngineBenchRound> out;
  for (int round = 0; round <= rounds; ++round) {
    SubmitAll(engine, spec, weights.valid_vocab(), static_cast<std::uint64_t>(round));
    THRESHER_ASSIGN_OR_RETURN(const EngineBenchRound measured, RunRound(engine, spec));
    if (round > 0) out.push_back(measured);
  }
  return out;
}

}  // namespace thresher::launch
