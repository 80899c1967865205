#pragma once

#include <vector>

#include "learner/leaf.h"
#include "tests/unit/model/small_model.h"

namespace thresher::learner {

// Samples a trajectory as an engine does: one row a forward pass, from `model`'s own distribution.
inline Trajectory SampleTrajectory(const model::PackedModel& model, std::uint32_t item, int prompt,
                                   int new_tokens, float temperature, std::uint32_t actor) {
  Trajectory out;
  out.id.item = item;
  out.actor = ActorId(actor);
  out.sampling.temperature = temperature;
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
    const std::vector<float> temperatures = {temperature};
    const std::vector<double> uniform = {random.Uniform(static_cast<std::uint32_t>(i + 1))};
    std::vector<std::int32_t> token(1);
    std::vector<float> logprob(1);
    model::Sample(model, hidden, temperatures, uniform, *workspace, token, logprob);
    out.tokens.push_back(token[0]);
    out.logprobs.push_back(logprob[0]);
  }
  const auto begin = static_cast<std::uint32_t>(prompt);
  const auto end = static_cast<std::uint32_t>(prompt + new_tokens);
  out.segments = {{0, begin, Role::kPrompt, false}, {begin, end, Role::kPolicy, true}};
  return out;
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
