// Generated tokens per second of the engine on one core, at 128 running sequences of the
// quickstart's shape, against the matrix products alone.
#include <iostream>

#include "actor/engine/engine.h"
#include "tests/bench/model_limit.h"

namespace thresher::bench {
namespace {

constexpr int kRuns = 7, kSequences = 256, kBatch = 128, kNewTokens = 24, kPromptTokens = 10;

// Generates kSequences to full length; prompts and sampling are counted in the time.
double GeneratedPerSecond(actor::Engine& engine, std::uint64_t round) {
  for (std::uint32_t i = 0; i < kSequences; ++i) {
    actor::GenerationRequest request;
    request.id = {Stream::kUser, 0, round, i};
    for (int t = 0; t < kPromptTokens; ++t) request.prompt.push_back(4 + (t * 7 + static_cast<int>(i)) % 20);
    request.sampling.max_new_tokens = kNewTokens;
    THRESHER_CHECK(engine.Submit(std::move(request)).ok(), "submit");
  }
  std::size_t tokens = 0;
  double seconds = Seconds([&] {
    while (engine.load() > 0) {
      for (const auto finished = engine.Step().value(); const auto& result : finished) tokens += result.logprobs.size();
    }
  });
  return static_cast<double>(tokens) / seconds;
}

int Main() {
  model::ModelConfig shape = QuickstartShape();
  actor::EngineOptions options;
  options.max_batch = kBatch;
  actor::Engine engine(shape, options);
  auto flat = model::InitialWeights(shape, 1, 0.02);
  THRESHER_CHECK(
      engine.SetWeights(model::PackedModel::Make(shape, flat, 0, false), PolicyVersion{0, 0}).ok(),
      "weights");
  GeneratedPerSecond(engine, 0);  // warm up
  Rates rates;
  for (std::uint64_t run = 1; run <= kRuns; ++run) {
    rates.rate.push_back(GeneratedPerSecond(engine, run));
    // Every generated token is one row; so is every prompt token.
    double rows_per_token = static_cast<double>(kNewTokens + kPromptTokens - 1) / kNewTokens;
    rates.limit.push_back(GemmRowsPerSecond(shape, kBatch) / rows_per_token);
  }
  std::cout << Describe("engine", "generated tokens/s, one core",
                        "matrix products of the same rows alone", rates)
            << "\n";
  return 0;
}

}  // namespace
}  // namespace thresher::bench

int main() { return thresher::bench::Main(); }
