#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_set>
#include <vector>

#include "actor/engine/page_pool.h"
#include "actor/engine/sequence.h"

namespace thresher::actor {

struct SchedulerOptions {
  std::int32_t max_batch = 128;  // sequences running at once
  std::int32_t prefill_chunk =
      512;                 // rows in one step at most, other than one per running sequence
  std::int32_t pages = 0;  // of the KV cache
  bool prefix_sharing = true;
  // Whether a sequence that samples so may run ahead; empty: none may.
  std::function<bool(const model::RowSampling&)> runs_ahead = {};
};

// Tokens [begin, begin + count) of a sequence are rows of the next forward pass. Those that reach
// the sequence's end have the token behind their last row drawn.
struct RowRange {
  Sequence* sequence = nullptr;
  std::size_t begin = 0, count = 0;
  bool drawn = false;
};

struct StepPlan {
  std::vector<PageCopy> copies;  // to be made first, in order
  std::vector<RowRange> ranges;
};

struct SchedulerCounters {
  std::uint64_t prefill_tokens = 0;     // prompt positions computed, each once a sequence
  std::uint64_t recomputed_tokens = 0;  // positions computed again: preemptions, prefixes
  std::uint64_t prefix_hits = 0;        // admissions that found a prefix computed
  std::uint64_t shared_tokens = 0;      // positions that they did not have to compute
  std::uint64_t preemptions = 0;
};

// Decides what runs: admission, pages, preemption, chunks of prompts. Pure: no model, no clock.
//
// Admission is first in, first out, as soon as there are pages for the tokens a sequence has (not
// for those it may get) and one more for each running sequence. A request whose prompt is being
// computed by a running one waits until that is done and then shares it; only meanwhile may others
// pass it. A running sequence takes pages as it grows. When there are none, the newest of those
// running is preempted: its pages go back, and it waits again at its place in the order of
// submission, in front of all that came later. Its prefix is computed again when it returns, as far
// as its pages have been given to others.
//
// A sequence may run ahead: its next row is planned while its last token is being drawn, if who
// computes the steps can do that (RunsAhead) and if it is not the last one. What it then turns out
// not to need (a stop token was drawn) is dropped. Nobody is preempted while steps are on their
// way.
//
// So the oldest sequence is never preempted and, fitting the cache alone (CheckRequest), always
// comes to its end: no deadlock and no starvation. One owner, not thread-safe.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // Queues a sequence that fits the cache when it runs alone.
  void Add(std::unique_ptr<Sequence> sequence);
  std::size_t running() const { return running_.size(); }
  std::size_t waiting() const { return waiting_.size(); }

  // The next step under weights of `version`. Empty when there is nothing to do or, while others
  // are on their way (`ahead`), when that has to wait for them.
  StepPlan Plan(PolicyVersion version, bool ahead = false);
  // The plan's rows are computed, or are on their way.
  void Processed(const StepPlan& plan, PolicyVersion version);

  // The sequence called `id`, or null; the oldest if there are several.
  Sequence* Find(const TrajectoryId& id);
  // Takes a sequence out, running or waiting, and gives its pages back.
  std::unique_ptr<Sequence> Remove(const Sequence& sequence);
  // All of them, the running ones first, in order of submission.
  std::vector<std::unique_ptr<Sequence>> RemoveAll();
  // The weights change; nothing runs or waits (checked).
  void ForgetPrefixes();

  const PagePool& pool() const { return pool_; }
  const SchedulerCounters& counters() const { return counters_; }

 private:
  using Queue = std::map<std::uint64_t, std::unique_ptr<Sequence>>;  // by order of submission

  // Whether every running sequence can have the pages it needs.
  bool CanGrow() const;
  void Grow();
  void Preempt(Sequence& sequence);
  void Admit(PolicyVersion version, StepPlan& plan);
  void CutRows(StepPlan& plan);
  void LeaveSlot(Sequence& sequence);
  // Whether a running sequence is computing more of its prompt than the last position.
  static bool ComputesPrompt(const Sequence& sequence) {
    return sequence.processed + 1 < sequence.result.prompt_tokens;
  }

  SchedulerOptions options_;
  PagePool pool_;
  Queue waiting_, running_;
  std::vector<std::int32_t> free_slots_;  // descending
  std::uint64_t next_ordinal_ = 0;
  std::unordered_set<std::uint64_t> prompts_in_work_;  // hashes; used by Admit alone
  SchedulerCounters counters_;
};

}  // namespace thresher::actor
