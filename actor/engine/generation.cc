#include "actor/engine/generation.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "actor/engine/prefix_cache.h"

namespace thresher::actor {
namespace {

constexpr std::int32_t kMaxTopLogprobs = 1024;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

// Collects the first broken rule.
class Rules {
 public:
  explicit Rules(const GenerationRequest& request) : name_(request.id.ToString()) {}

  void Require(bool holds, const std::string& problem, StatusCode code) {
    if (!holds && status_.ok()) status_ = Status(code, name_ + ": " + problem);
  }
  void Require(bool holds, const std::string& problem) {
    Require(holds, problem, StatusCode::kInvalidArgument);
  }
  // `value` as it is, and the range that it is not in.
  void InRange(bool holds, const char* what, double value, const char* range) {
    if (!holds) Require(false, std::string(what) + " " + Number(value) + "; allowed: " + range);
  }
  void Token(const char* what, std::int32_t token, std::int32_t vocab) {
    if (token >= 0 && token < vocab) return;
    Require(false, std::string(what) + " " + std::to_string(token) + "; allowed: 0 to " +
                       std::to_string(vocab - 1));
  }
  const Status& status() const { return status_; }

 private:
  std::string name_;
  Status status_;
};

void CheckSampling(const SamplingParams& s, const model::ModelConfig& shape,
                   std::int32_t valid_vocab, Rules& rules) {
  rules.InRange(s.temperature >= 0 && std::isfinite(s.temperature), "temperature", s.temperature,
                "0 and more");
  rules.InRange(s.top_p > 0 && s.top_p <= 1, "top_p", s.top_p, "above 0, to 1");
  rules.InRange(s.min_p >= 0 && s.min_p <= 1, "min_p", s.min_p, "0 to 1");
  rules.InRange(s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty),
                "repetition_penalty", s.repetition_penalty, "above 0");
  std::int32_t last = -1;
  for (const LogitBias& bias : s.logit_bias) {
    rules.Token("logit_bias: token", bias.token, shape.vocab);
    rules.Require(bias.token > last, "logit_bias: tokens must ascend");
    rules.Require(std::isfinite(bias.value), "logit_bias: a value that is not finite");
    last = bias.token;
  }
  last = -1;
  for (std::int32_t token : s.allowed_tokens) {
    rules.Token("allowed_tokens: token", token, shape.vocab);
    rules.Require(token > last, "allowed_tokens: tokens must ascend");
    last = token;
  }
  rules.Require(s.allowed_tokens.empty() || s.allowed_tokens.front() < valid_vocab,
                "allowed_tokens: none of them can be sampled");
}

void CheckLength(const GenerationRequest& request, const model::ModelConfig& shape,
                 std::int32_t pages, Rules& rules) {
  const std::uint32_t wanted = request.sampling.max_new_tokens;
  const std::size_t longest = request.prompt.size() + wanted;
  rules.Require(wanted >= 1 && longest <= static_cast<std::size_t>(shape.context),
                "prompt of " + std::to_string(request.prompt.size()) +
                    " tokens and max_new_tokens " + std::to_string(wanted) +
                    " do not fit the context of " + std::to_string(shape.context),
                StatusCode::kOutOfRange);
  rules.Require(PagesFor(longest) <= pages,
                "needs " + std::to_string(PagesFor(longest)) + " KV pages; the cache has " +
                    std::to_string(pages),
                StatusCode::kOutOfRange);
}

// That every position but the last was written, and each sampled by somebody.
void CheckSpans(const GenerationRequest& request, Rules& rules) {
  const GeneratedPrefix& prefix = request.prefix;
  const std::size_t length = request.prompt.size() + prefix.tokens.size();
  std::vector<bool> written(length - 1);
  for (const KvSpan& span : prefix.kv_history) {
    rules.Require(span.begin < span.end && span.end < length, "prefix: KV history out of range");
    if (!rules.status().ok()) return;
    std::fill(written.begin() + span.begin, written.begin() + span.end, true);
  }
  rules.Require(std::find(written.begin(), written.end(), false) == written.end(),
                "prefix: a position that nothing wrote");
  std::size_t sampled = request.prompt.size();
  for (const VersionSpan& span : prefix.versions) {
    rules.Require(span.begin == sampled && span.end > span.begin, "prefix: a gap in its versions");
    sampled = span.end;
  }
  rules.Require(sampled == length, "prefix: versions of another number of tokens");
}

void CheckPrefix(const GenerationRequest& request, std::int32_t vocab, Rules& rules) {
  const GeneratedPrefix& prefix = request.prefix;
  if (prefix.tokens.empty()) {
    rules.Require(prefix.logprobs.empty() && prefix.kept_mass_logprobs.empty() &&
                      prefix.versions.empty() && prefix.kv_history.empty(),
                  "prefix: columns without tokens");
    return;
  }
  const std::size_t tokens = prefix.tokens.size();
  for (std::int32_t token : prefix.tokens) {
    rules.Token("prefix: token", token, vocab);
    const auto& stops = request.stop_tokens;
    rules.Require(std::find(stops.begin(), stops.end(), token) == stops.end(),
                  "prefix: it has a stop token");
  }
  rules.Require(tokens < request.sampling.max_new_tokens, "prefix: nothing is left to generate");
  rules.Require(prefix.logprobs.size() == tokens, "prefix: a logprob for each token");
  rules.Require(prefix.kept_mass_logprobs.size() == (request.sampling.Filtered() ? tokens : 0),
                "prefix: a kept-mass logprob for each token that was filtered");
  rules.Require(request.top_logprobs == 0, "prefix: its likeliest ids are not known");
  if (!request.prompt.empty()) CheckSpans(request, rules);
}

}  // namespace

Status CheckRequest(const GenerationRequest& request, const model::ModelConfig& shape,
                    std::int32_t valid_vocab, std::int32_t pages) {
  Rules rules(request);
  rules.Require(!request.prompt.empty(), "the prompt is empty");
  for (std::int32_t token : request.prompt) rules.Token("prompt token", token, shape.vocab);
  CheckSampling(request.sampling, shape, valid_vocab, rules);
  for (std::int32_t token : request.stop_tokens) rules.Token("stop token", token, shape.vocab);
  for (const std::string& stop : request.stop_strings) {
    rules.Require(!stop.empty(), "an empty stop string");
  }
  rules.Require(request.stop_strings.empty() || request.decode != nullptr,
                "stop strings without a decoder");
  rules.InRange(request.top_logprobs >= 0 && request.top_logprobs <= kMaxTopLogprobs,
                "top_logprobs", request.top_logprobs, "0 to 1024");
  CheckPrefix(request, shape.vocab, rules);
  CheckLength(request, shape, pages, rules);
  return rules.status();
}

}  // namespace thresher::actor
