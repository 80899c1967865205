#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "actor/engine/generation.h"
#include "actor/engine/scheduler.h"
#include "common/model/forward.h"

namespace thresher::actor {

struct EngineOptions {
  std::int32_t max_batch = 128;      // sequences running at once
  std::int32_t prefill_chunk = 512;  // prompt tokens in one step at most, over all sequences
  std::int32_t kv_pages = 0;         // 0: enough for max_batch sequences of full context
  bool prefix_sharing = true;        // false: every sequence computes its whole prompt
};

// What has been done, and how things stand.
struct EngineCounters {
  std::uint64_t steps = 0;
  std::uint64_t prefill_tokens = 0;     // prompt positions computed
  std::uint64_t decode_tokens = 0;      // sampled tokens
  std::uint64_t recomputed_tokens = 0;  // positions computed again after preemptions
  std::uint64_t prefix_hits = 0;        // admissions that found a prefix computed
  std::uint64_t shared_tokens = 0;      // positions that they did not have to compute
  std::uint64_t preemptions = 0;
  std::uint64_t finished = 0;  // kError included, cancelled ones not
  std::uint64_t cancelled = 0;
  std::uint32_t longest_step_ms = 0;
  // Now.
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint32_t pages_used = 0;      // held by running sequences
  std::uint32_t pages_shared = 0;    // by several of them
  std::uint32_t pages_retained = 0;  // by none, kept for who begins with the same tokens
  std::uint32_t pages_free = 0;
};

// Generates sequences with continuous batching over a paged KV cache: every Step runs one forward
// pass over a chunk of waiting prompts and one row of each running sequence. Row-pure: a sequence's
// tokens and logprobs depend on its request and the weights alone, whatever runs beside it, whether
// its prefix was shared and however often it was preempted (scheduler.h).
//
// The uniform number of the token at position p is RandomStream(run_seed, id, kSample).Uniform(p).
// One owner, not thread-safe; the workspace's pool, if it has one, works for it during Step.
class Engine {
 public:
  Engine(const model::ModelConfig& shape, const EngineOptions& options,
         model::WorkspacePtr workspace = model::NewWorkspace());

  // Weights for everything that is submitted from now on. Only while nothing runs or waits
  // (checked). Prefixes computed by the weights before are forgotten.
  void SetWeights(std::shared_ptr<const model::PackedModel> weights, PolicyVersion version);
  bool has_weights() const { return weights_ != nullptr; }
  PolicyVersion version() const { return version_; }

  // Queues a request. Errors: kFailedPrecondition (no weights); those of CheckRequest. What can
  // never run is refused here and harms nobody.
  Status Submit(GenerationRequest request);
  // Sequences queued or running.
  std::size_t load() const { return scheduler_->running() + scheduler_->waiting(); }
  // One forward pass; returns what it finished. Nothing to do: returns at once, empty.
  std::vector<GenerationResult> Step();
  // The tokens that the last Step sampled, one for each sequence that had one, for streaming.
  const std::vector<FreshToken>& fresh_tokens() const { return fresh_tokens_; }

  // Takes one sequence out, queued or running: what it has so far, finish kCancelled. Nothing if
  // there is none of that id.
  std::optional<GenerationResult> Cancel(const TrajectoryId& id);
  // Drops everything queued or running and returns the ids.
  std::vector<TrajectoryId> CancelAll();
  EngineCounters counters() const;

 private:
  void CopyPage(const PageCopy& copy);
  void BuildRows(const StepPlan& plan);
  // Samples the plan's sampled rows; returns the sequences that have ended.
  std::vector<Sequence*> SampleRows(const StepPlan& plan);
  GenerationResult Finish(const Sequence& sequence);

  model::ModelConfig shape_;
  std::shared_ptr<const model::PackedModel> weights_;
  PolicyVersion version_;
  model::KvCache cache_;
  std::unique_ptr<Scheduler> scheduler_;
  model::WorkspacePtr workspace_;
  model::RowBatch rows_;
  std::vector<float> hidden_, sampled_hidden_;
  std::vector<model::RowSampling> sampling_;
  std::vector<FreshToken> fresh_tokens_;
  EngineCounters counters_;  // what the engine itself counts
};

}  // namespace thresher::actor
