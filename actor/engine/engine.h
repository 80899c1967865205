#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "actor/engine/page_allocator.h"
#include "common/base/clock.h"
#include "common/base/random.h"
#include "common/data/trajectory.h"
#include "common/model/forward.h"

namespace thresher::actor {

// One sequence to generate.
struct GenerationRequest {
  TrajectoryId id;                   // names the sampling randomness
  std::vector<std::int32_t> prompt;  // at least one token
  SamplingParams sampling;           // temperature and max_new_tokens
  std::uint64_t run_seed = 0;
  std::int32_t stop_token = -1;  // ends the sequence, and is part of it
};

// What came of it. Tokens are the prompt's and the new ones; logprobs belong to the new ones.
struct GenerationResult {
  TrajectoryId id;
  std::vector<std::int32_t> tokens;
  std::size_t prompt_tokens = 0;
  std::vector<float> logprobs;
  std::vector<VersionSpan> versions;
  std::vector<KvSpan> kv_history;
  FinishReason finish = FinishReason::kStop;
  Timings timings;
};

struct EngineOptions {
  std::int32_t max_batch = 128;      // sequences running at once
  std::int32_t prefill_chunk = 512;  // prompt tokens in one step at most, over all sequences
  std::int32_t kv_pages = 0;         // 0: enough for max_batch sequences of full context
};

struct EngineCounters {
  std::uint64_t steps = 0;
  std::uint64_t prefill_tokens = 0;
  std::uint64_t decode_tokens = 0;  // sampled tokens
  std::uint64_t finished = 0;
  std::uint32_t longest_step_ms = 0;
};

// Generates sequences with continuous batching over a paged KV cache: every Step runs one forward
// pass over a chunk of waiting prompts and one row of each running sequence. Row-pure: a sequence's
// tokens and logprobs depend on its request and the weights alone, whatever runs beside it.
//
// The uniform number of the token at position p is RandomStream(run_seed, id, kSample).Uniform(p).
// A sequence is admitted when the pages of its longest possible length are free, so it never has
// to be preempted. One owner, not thread-safe.
class Engine {
 public:
  Engine(const model::ModelConfig& shape, const EngineOptions& options);

  // Weights for everything that is submitted from now on. Only while nothing runs (checked).
  void SetWeights(std::shared_ptr<const model::PackedModel> weights, PolicyVersion version);
  bool has_weights() const { return weights_ != nullptr; }
  PolicyVersion version() const { return version_; }

  // Queues a request. Errors: kFailedPrecondition (no weights), kInvalidArgument (empty prompt, a
  // token outside the vocabulary), kOutOfRange (prompt and max_new_tokens exceed the context).
  Status Submit(GenerationRequest request);
  // Sequences queued or running.
  std::size_t load() const { return waiting_.size() + running_.size(); }
  // One forward pass; returns what it finished. Nothing to do: returns at once, empty.
  std::vector<GenerationResult> Step();
  // Drops everything queued or running and returns the ids.
  std::vector<TrajectoryId> CancelAll();
  const EngineCounters& counters() const { return counters_; }

 private:
  struct Sequence {
    GenerationRequest request;
    GenerationResult result;
    std::vector<std::int32_t> pages;
    std::size_t processed = 0;  // tokens whose keys and values are in the cache
    TimePoint submitted{}, admitted{}, first_token{};
  };

  std::int32_t PagesNeeded(const GenerationRequest& request) const;
  void Admit();
  // Appends the rows of this step; `sampled` receives the sequences whose last row is sampled.
  void BuildRows(std::vector<Sequence*>& sampled, std::vector<std::int32_t>& sampled_rows);
  void SampleRows(const std::vector<Sequence*>& sampled,
                  const std::vector<std::int32_t>& sampled_rows);
  bool IsFinished(const Sequence& sequence) const;
  GenerationResult Finish(Sequence& sequence);
  std::vector<GenerationResult> CollectFinished();

  model::ModelConfig shape_;
  EngineOptions options_;
  std::shared_ptr<const model::PackedModel> weights_;
  PolicyVersion version_;
  model::KvCache cache_;
  PageAllocator pages_;
  model::WorkspacePtr workspace_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  model::RowBatch rows_;
  std::vector<float> hidden_, sampled_hidden_;
  EngineCounters counters_;
};

}  // namespace thresher::actor
