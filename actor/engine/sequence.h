#pragma once

#include <cstdint>
#include <vector>

#include "actor/engine/generation.h"
#include "actor/engine/kv_history.h"
#include "actor/engine/page_pool.h"
#include "actor/engine/stop_rules.h"
#include "common/base/clock.h"

namespace thresher::actor {

// A request on its way through the engine. Stays where it was made: parts refer to others.
struct Sequence {
  // vocab: ids of the model.
  Sequence(GenerationRequest wanted, std::int32_t vocab);
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // Tokens, those that are being drawn included.
  std::size_t length() const { return result.tokens.size() + drawn; }
  // How the token at length() is to be sampled. Borrows from this.
  model::RowSampling NextSampling() const;
  // Whether the last of its tokens is on its way or known.
  bool IsComplete() const {
    return length() >= result.prompt_tokens + request.sampling.max_new_tokens;
  }
  // Whether a stop string is in the prefix of its request: it should not have been submitted.
  bool EndsInPrefix() const { return ends_in_prefix_; }
  // What there is of it now, as Engine::SoFar returns it.
  GenerationResult SoFar() const;
  // Takes what was drawn for it; true: the sequence has ended.
  bool Take(model::RowSample sample, PolicyVersion version);
  // Tokens without keys and values; at least the last one.
  std::size_t pending() const { return length() - processed; }

  GenerationRequest request;
  GenerationResult result;
  std::uint64_t prompt_hash = 0;
  std::uint64_t ordinal = 0;  // of submission
  PageTable table;
  std::int32_t slot = -1;     // while it runs
  std::size_t drawn = 0;      // tokens behind result.tokens that are on their way
  std::size_t processed = 0;  // positions whose keys and values are in the table's pages
  std::size_t reached = 0;    // positions for which that was so at some time
  KvHistory history;
  TimePoint submitted{}, admitted{}, first_token{};
  bool was_admitted = false;

 private:
  bool Ends(std::int32_t token);
  void TakePrefix();

  StopRules stop_;
  bool ends_in_prefix_ = false;
  // The request's sampling lists as the kernels take them.
  std::vector<std::int32_t> seen_;  // ascending; only with a repetition penalty
  std::vector<std::int32_t> bias_ids_;
  std::vector<float> bias_values_;
  std::vector<std::uint64_t> allowed_;
};

}  // namespace thresher::actor
