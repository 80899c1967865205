#include "common/config/sampling.h"

#include <algorithm>

namespace thresher {

SamplingParams SamplingOf(const Config& config, Stream stream) {
  const SamplingConfig& c = config.sampling;
  SamplingParams params;
  params.max_new_tokens = static_cast<std::uint32_t>(c.max_new_tokens);
  if (stream == Stream::kEval) {
    params.temperature = static_cast<float>(config.eval.temperature);
    return params;
  }
  params.temperature = static_cast<float>(c.temperature);
  params.top_k = static_cast<std::uint32_t>(c.top_k);
  params.top_p = static_cast<float>(c.top_p);
  params.min_p = static_cast<float>(c.min_p);
  params.repetition_penalty = static_cast<float>(c.repetition_penalty);
  return params;
}

std::uint32_t PartialInterval(const Config& config) {
  const int tokens = config.actors.partial_tokens;
  if (tokens == 0 || config.sampling.max_new_tokens < tokens) return 0;
  return static_cast<std::uint32_t>(std::max(1, tokens / 2));
}

}  // namespace thresher
