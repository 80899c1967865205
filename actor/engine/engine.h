#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "actor/engine/generation.h"
#include "actor/engine/scheduler.h"
#include "common/backend/backend.h"
#include "common/model/step_runner.h"

namespace thresher::actor {

struct EngineOptions {
  std::int32_t max_batch = 128;      // sequences running at once
  std::int32_t prefill_chunk = 512;  // prompt tokens in one step at most, over all sequences
  std::int32_t kv_pages = 0;   // 0: enough for max_batch sequences of full context; on a GPU as far
                               // as its memory goes
  bool colocated = false;      // a GPU that is shared with a learner (ReleaseMemory)
  bool prefix_sharing = true;  // false: every sequence computes its whole prompt
};

// What has been done, and how things stand.
struct EngineCounters {
  std::uint64_t steps = 0;
  std::uint64_t prefill_tokens = 0;     // prompt positions computed
  std::uint64_t decode_tokens = 0;      // sampled tokens
  std::uint64_t recomputed_tokens = 0;  // positions computed again: preemptions, prefixes
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

// Generates sequences with continuous batching over a paged KV cache: a step is one forward pass
// over a chunk of waiting prompts and one row of each running sequence. Where steps are computed
// elsewhere (step_runner.h), the next one is on its way before the last one's tokens are known, so
// that nobody waits for this thread. Row-pure: a sequence's
// tokens and logprobs depend on its request and the weights alone, whatever runs beside it, whether
// its prefix was shared and however often it was preempted (scheduler.h).
//
// The uniform number of the token at position p is RandomStream(run_seed, id, kSample).Uniform(p).
// One owner, not thread-safe.
class Engine {
 public:
  // On the CPU; the workspace's pool, if it has one, works for it during Step.
  Engine(const model::ModelConfig& shape, const EngineOptions& options,
         model::WorkspacePtr workspace = model::NewWorkspace());
  // With steps computed by `runner`, which has slots for options.max_batch sequences (checked);
  // its pages count, not the options'.
  Engine(const model::ModelConfig& shape, const EngineOptions& options,
         std::unique_ptr<model::StepRunner> runner);

  // Weights for everything that is submitted from now on. Only while nothing runs or waits
  // (checked). Prefixes computed by the weights before are forgotten. Errors: the runner's; one
  // that says that they do not fit leaves everything as it was.
  Status SetWeights(std::shared_ptr<const model::PackedModel> weights, PolicyVersion version);
  bool has_weights() const { return valid_vocab_.has_value(); }
  PolicyVersion version() const { return version_; }

  // Queues a request. Errors: kFailedPrecondition (no weights); those of CheckRequest; that of a
  // step that has failed. What can never run is refused here and harms nobody.
  Status Submit(GenerationRequest request);
  // Sequences queued or running.
  std::size_t load() const { return scheduler_->running() + scheduler_->waiting(); }
  // Brings the oldest step on its way to its end, having launched the next ones; returns what it
  // finished. Nothing to do: returns at once, empty. Errors: the runner's; the engine can do
  // nothing more then but cancel, and says so again.
  Result<std::vector<GenerationResult>> Step();
  // The tokens that the last Step sampled, one for each sequence that had one, for streaming.
  const std::vector<FreshToken>& fresh_tokens() const { return fresh_tokens_; }

  // What there is of a sequence, queued or running, to be continued (GenerationRequest::prefix)
  // here or elsewhere; finish kCancelled, without timings. Nothing if there is none of that id, or
  // no token of it is known yet.
  std::optional<GenerationResult> SoFar(const TrajectoryId& id) const;
  // Takes one sequence out, queued or running: what it has so far, finish kCancelled. Nothing if
  // there is none of that id.
  std::optional<GenerationResult> Cancel(const TrajectoryId& id);
  // Drops everything queued or running and returns the ids.
  std::vector<TrajectoryId> CancelAll();
  EngineCounters counters() const;
  // Gives back what the runner can take again; prefixes are forgotten. Only while nothing runs or
  // waits (checked). Errors: the runner's.
  Status ReleaseMemory();

 private:
  // Who gets the draws of a step on its way; null: a sequence that has gone meanwhile.
  using Drawn = std::vector<Sequence*>;

  // Launches the next step. False: there is none yet.
  Result<bool> Launch();
  void BuildStep(const StepPlan& plan);
  // Waits for the oldest step and hands out its draws; returns the sequences that have ended.
  Result<std::vector<Sequence*>> Collect();
  Status CollectRest();
  GenerationResult Finish(const Sequence& sequence);
  // A sequence that leaves the engine gets nothing more.
  void Forget(const Sequence& sequence);

  model::ModelConfig shape_;
  std::optional<std::int32_t> valid_vocab_;  // of the weights, which the runner alone keeps
  PolicyVersion version_;
  std::unique_ptr<model::StepRunner> runner_;
  std::unique_ptr<Scheduler> scheduler_;
  model::StepInput step_;
  std::deque<Drawn> on_their_way_;  // one for each step, the oldest first
  std::vector<FreshToken> fresh_tokens_;
  EngineCounters counters_;  // what the engine itself counts
  Status failure_;           // of a step: the runner computes no more
};

// An engine whose steps are computed on `device`; `pool`: the CPU's, borrowed, or null. Errors:
// those of backend::MakeRunner.
Result<Engine> MakeEngine(const model::ModelConfig& shape, const EngineOptions& options,
                          const Device& device, WorkerPool* pool);

}  // namespace thresher::actor
