#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/data/trajectory.h"
#include "common/model/forward.h"

namespace thresher::actor {

// What was generated of a sequence before, wherever that was; as in GenerationResult. The sequence
// goes on behind it, as one that was preempted does: its positions are computed again.
struct GeneratedPrefix {
  std::vector<std::int32_t> tokens;  // behind the prompt
  std::vector<float> logprobs;
  std::vector<float> kept_mass_logprobs;
  std::vector<VersionSpan> versions;
  std::vector<KvSpan> kv_history;
};

// One sequence to generate. It ends
//   with the first generated token that is one of stop_tokens, or after which the text of the
//     generated tokens contains one of stop_strings: kStop. That token is kept, with whatever of
//     its text lies behind the stop string; no token comes after it.
//   else after sampling.max_new_tokens generated tokens: kLength.
//   else when nothing can be sampled (no id allowed, logits that are not finite): kError, with the
//     tokens before.
struct GenerationRequest {
  TrajectoryId id;                   // names the sampling randomness
  std::vector<std::int32_t> prompt;  // at least one token
  SamplingParams sampling;
  std::uint64_t run_seed = 0;
  std::vector<std::int32_t> stop_tokens;
  std::vector<std::string> stop_strings;
  // The text that the next generated token adds (incrementally decoded); called once for each, in
  // order. Needed with stop_strings, else not called.
  std::function<std::string(std::int32_t token)> decode;
  std::int32_t top_logprobs = 0;  // how many of the likeliest ids are reported for each token
  // Not with top_logprobs. Without its end: no token of it ends the sequence.
  GeneratedPrefix prefix{};
};

// What came of it. Tokens are the prompt's and the new ones; the other columns belong to the new
// ones.
struct GenerationResult {
  TrajectoryId id;
  std::vector<std::int32_t> tokens;
  std::size_t prompt_tokens = 0;
  std::vector<float> logprobs;
  std::vector<float> kept_mass_logprobs;  // only with filters (SamplingParams::Filtered)
  std::vector<std::vector<model::TokenLogProb>> top_logprobs;  // only when asked for
  std::vector<VersionSpan> versions;
  std::vector<KvSpan> kv_history;
  FinishReason finish = FinishReason::kStop;
  std::int32_t stop_string = -1;  // which of the stop strings ended it; -1: none
  std::string error;              // with kError
  Timings timings;
};

// A token that the last step sampled.
struct FreshToken {
  TrajectoryId id;
  std::uint32_t position = 0;  // in the sequence, prompt included
  std::int32_t token = 0;
  float logprob = 0;
};

// Whether a request can run on this model with `pages` KV pages at most. Errors, with the request's
// name: kInvalidArgument (empty prompt, an id outside the vocabulary or, among those allowed, none
// that can be sampled, sampling parameters out of range, stop strings without a decoder, a prefix
// that is complete or whose columns do not fit),
// kOutOfRange (prompt and max_new_tokens exceed the context or the pages).
Status CheckRequest(const GenerationRequest& request, const model::ModelConfig& shape,
                    std::int32_t valid_vocab, std::int32_t pages);

}  // namespace thresher::actor
