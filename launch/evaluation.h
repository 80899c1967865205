#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "actor/rollout.h"
#include "broker/evaluation.h"
#include "common/base/status.h"
#include "common/config/device.h"
#include "launch/policy.h"

namespace thresher::launch {

// What one sample of an item came to.
struct Answer {
  std::string parsed;  // canonical form; empty: not parsed, does not vote
  bool solved = false;
};

// Whether the most frequent parsed answer of `answers` is a solution; of equally frequent ones the
// one given first counts. No parsed answer: false.
bool MajoritySolves(const std::vector<Answer>& answers);

// maj@k over items, each with the same number n >= k of answers: an item's answers are cut in order
// into floor(n / k) votes of k, which are independent, so their mean is unbiased. The interval is
// that of broker::PassAtK.
broker::Estimate MajorityAtK(const std::vector<std::vector<Answer>>& items, std::uint32_t k);

struct EvaluationSpec {
  std::uint32_t items = 0;
  std::uint32_t samples = 0;
  float temperature = 1.0f;
  std::uint32_t max_new_tokens = 0;
};

struct EvaluationResult {
  std::vector<std::vector<Answer>> items;  // in order of item and sample
  std::map<std::string, std::uint64_t> reasons;
  std::uint64_t generated_tokens = 0;
  double mean_reward = 0;
  // What broker::PassAtK takes.
  broker::EvalResult Solved() const;
};

// Samples items [0, items) of stream eval with the engine on `device` and grades them. `progress`
// hears how many samples are done. Errors: kOutOfRange (prompt and max_new_tokens exceed the
// model's context); without_tokenizer; the device's.
Result<EvaluationResult> Evaluate(const LoadedPolicy& policy, const Config& config,
                                  const EvaluationSpec& spec, const Device& device,
                                  const std::function<void(std::uint64_t done)>& progress);

}  // namespace thresher::launch
