#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "learner/leaf.h"
#include "tests/unit/model/small_model.h"

namespace thresher::learner {

// Samples a trajectory as an engine does: one row a forward pass, from `model`'s own distribution.
inline Trajectory SampleTrajectory(const model::PackedModel& model, std::uint32_t item, int prompt,
                                   int new_tokens, const SamplingParams& sampling,
                                   std::uint32_t actor) {
  Trajectory out;
  out.id.item = item;
  out.actor = ActorId(actor);
  out.sampling = sampling;
  out.tokens = model::RandomTokens(item, prompt, model.config().vocab);
  const std::vector<std::int32_t> pages = model::PageTable(0, 1, prompt + new_tokens);
  model::KvCache cache(model.config(), static_cast<std::int32_t>(pages.size()));
  const model::WorkspacePtr workspace = model::NewWorkspace();
  const RandomStream random(5, out.id, RandomPurpose::kSample);
  for (int i = 0; i + 1 < prompt + new_tokens; ++i) {
    model::RowBatch row;
    model::Append(out.tokens, i, i + 1, pages, row);
    const std::vector<float> hidden = model::HiddenOf(model, row, cache);
    if (i + 1 < prompt) continue;
    std::vector<std::int32_t> seen = out.tokens;
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    model::RowSampling draw;
    draw.temperature = sampling.temperature;
    draw.uniform = random.Uniform(static_cast<std::uint32_t>(i + 1));
    draw.top_k = sampling.top_k;
    draw.top_p = sampling.top_p;
    draw.min_p = sampling.min_p;
    draw.repetition_penalty = sampling.repetition_penalty;
    draw.seen = seen;
    const model::RowSample sample =
        model::Sample(model, hidden, std::span(&draw, 1), *workspace).front();
    out.tokens.push_back(sample.token);
    out.logprobs.push_back(sample.logprob);
    if (sampling.Filtered()) out.kept_mass_logprobs.push_back(sample.kept_mass_logprob);
  }
  const auto begin = static_cast<std::uint32_t>(prompt);
  const auto end = static_cast<std::uint32_t>(prompt + new_tokens);
  out.segments = {{0, begin, Role::kPrompt, false}, {begin, end, Role::kPolicy, true}};
  return out;
}

inline Trajectory SampleTrajectory(const model::PackedModel& model, std::uint32_t item, int prompt,
                                   int new_tokens, float temperature, std::uint32_t actor) {
  SamplingParams sampling;
  sampling.temperature = temperature;
  return SampleTrajectory(model, item, prompt, new_tokens, sampling, actor);
}

// Loss tokens of a whole leaf.
inline std::uint64_t LossTokens(const LeafWork& work) {
  std::uint64_t count = 0;
  for (const TrainSequence& sequence : work.sequences) {
    for (auto flag : sequence.in_loss) count += flag;
  }
  return count;
}

}  // namespace thresher::learner
