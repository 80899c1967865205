#include "actor/engine/sequence.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/random.h"

namespace thresher::actor {
namespace {

void InsertOnce(std::int32_t token, std::vector<std::int32_t>& ascending) {
  const auto at = std::lower_bound(ascending.begin(), ascending.end(), token);
  if (at == ascending.end() || *at != token) ascending.insert(at, token);
}

}  // namespace

Sequence::Sequence(GenerationRequest wanted, std::int32_t vocab)
    : request(std::move(wanted)), stop_(request) {
  result.id = request.id;
  result.tokens = request.prompt;
  result.prompt_tokens = request.prompt.size();
  prompt_hash = HashBytes64(std::as_bytes(std::span(request.prompt)));
  const SamplingParams& sampling = request.sampling;
  for (const LogitBias& bias : sampling.logit_bias) {
    bias_ids_.push_back(bias.token);
    bias_values_.push_back(bias.value);
  }
  if (!sampling.allowed_tokens.empty()) allowed_.resize(static_cast<std::size_t>(vocab + 63) / 64);
  for (std::int32_t token : sampling.allowed_tokens) {
    allowed_[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (token % 64);
  }
  if (sampling.repetition_penalty != 1.0f) {
    seen_ = request.prompt;
    std::sort(seen_.begin(), seen_.end());
    seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
  }
  TakePrefix();
}

// As if each of its tokens had been drawn here.
void Sequence::TakePrefix() {
  GeneratedPrefix prefix = std::exchange(request.prefix, {});
  for (std::int32_t token : prefix.tokens) {
    result.tokens.push_back(token);
    if (request.sampling.repetition_penalty != 1.0f) InsertOnce(token, seen_);
    ends_in_prefix_ = ends_in_prefix_ || stop_.Ends(token);
  }
  result.logprobs = std::move(prefix.logprobs);
  result.kept_mass_logprobs = std::move(prefix.kept_mass_logprobs);
  result.versions = std::move(prefix.versions);
  history.Restore(std::move(prefix.kv_history));
  reached = history.written();
}

GenerationResult Sequence::SoFar() const {
  GenerationResult so_far = result;
  KvHistory written = history;
  written.Truncate(result.tokens.size() - 1);
  so_far.kv_history = written.spans();
  so_far.finish = FinishReason::kCancelled;
  return so_far;
}

model::RowSampling Sequence::NextSampling() const {
  const SamplingParams& sampling = request.sampling;
  const RandomStream random(request.run_seed, request.id, RandomPurpose::kSample);
  model::RowSampling row;
  row.temperature = sampling.temperature;
  row.uniform = random.Uniform(static_cast<std::uint32_t>(length()));
  row.top_k = sampling.top_k;
  row.top_p = sampling.top_p;
  row.min_p = sampling.min_p;
  row.repetition_penalty = sampling.repetition_penalty;
  row.seen = seen_;
  row.bias_ids = bias_ids_;
  row.bias_values = bias_values_;
  row.allowed = allowed_;
  row.top_n = request.top_logprobs;
  return row;
}

bool Sequence::Ends(std::int32_t token) {
  if (stop_.Ends(token)) {
    result.finish = FinishReason::kStop;
    result.stop_string = stop_.stop_string();
    return true;
  }
  result.finish = FinishReason::kLength;
  return result.logprobs.size() >= request.sampling.max_new_tokens;
}

bool Sequence::Take(model::RowSample sample, PolicyVersion version) {
  THRESHER_CHECK(drawn > 0, "a token that was not drawn");
  --drawn;
  if (sample.token < 0 || !std::isfinite(sample.logprob)) {
    result.finish = FinishReason::kError;
    result.error = "no token can be sampled at position " + std::to_string(result.tokens.size()) +
                   ": the logits are not finite, or no id is allowed";
    return true;
  }
  AppendSampled(static_cast<std::uint32_t>(result.tokens.size()), version, result.versions);
  result.tokens.push_back(sample.token);
  result.logprobs.push_back(sample.logprob);
  if (request.sampling.Filtered()) result.kept_mass_logprobs.push_back(sample.kept_mass_logprob);
  if (request.top_logprobs > 0) result.top_logprobs.push_back(std::move(sample.top));
  if (request.sampling.repetition_penalty != 1.0f) InsertOnce(sample.token, seen_);
  return Ends(sample.token);
}

}  // namespace thresher::actor
