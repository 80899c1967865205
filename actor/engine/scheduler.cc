#include "actor/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace thresher::actor {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), pool_(options.pages, options.prefix_sharing) {
  THRESHER_CHECK(options.max_batch >= 1 && options.prefill_chunk >= 1,
                 "an engine that can run nothing");
  for (std::int32_t slot = options.max_batch - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  sequence->ordinal = next_ordinal_++;
  waiting_.emplace(sequence->ordinal, std::move(sequence));
}

StepPlan Scheduler::Plan(PolicyVersion version, bool ahead) {
  StepPlan plan;
  if (ahead && !CanGrow()) return plan;
  Grow();
  Admit(version, plan);
  CutRows(plan);
  THRESHER_CHECK(ahead || !plan.ranges.empty() || (running_.empty() && waiting_.empty()),
                 "sequences wait and none can run");
  return plan;
}

namespace {

std::size_t PagesNeeded(const Sequence& sequence) {
  return static_cast<std::size_t>(PagesFor(sequence.length()));
}

}  // namespace

bool Scheduler::CanGrow() const {
  std::size_t missing = 0;
  for (const auto& [ordinal, sequence] : running_) {
    const std::size_t needed = PagesNeeded(*sequence), held = sequence->table.pages.size();
    if (needed > held) missing += needed - held;
  }
  return missing <= static_cast<std::size_t>(pool_.available());
}

// Pages for the token that each running sequence got in the last step, the oldest first.
void Scheduler::Grow() {
  for (auto& [ordinal, sequence] : running_) {
    while (sequence->table.pages.size() < PagesNeeded(*sequence)) {
      if (pool_.Extend(sequence->table)) continue;
      Sequence& newest = *running_.rbegin()->second;
      const bool itself = &newest == sequence.get();
      Preempt(newest);
      if (itself) return;  // it was the last one
    }
  }
}

void Scheduler::Preempt(Sequence& sequence) {
  pool_.Publish(sequence.result.tokens, sequence.processed, sequence.table);
  pool_.Release(sequence.table);
  LeaveSlot(sequence);
  sequence.processed = 0;
  ++counters_.preemptions;
  auto node = running_.extract(sequence.ordinal);
  waiting_.insert(std::move(node));
}

void Scheduler::LeaveSlot(Sequence& sequence) {
  if (sequence.slot < 0) return;
  free_slots_.push_back(std::exchange(sequence.slot, -1));
}

void Scheduler::Admit(PolicyVersion version, StepPlan& plan) {
  if (waiting_.empty()) return;
  prompts_in_work_.clear();
  for (const auto& [ordinal, sequence] : running_) {
    if (options_.prefix_sharing && ComputesPrompt(*sequence)) {
      prompts_in_work_.insert(sequence->prompt_hash);
    }
  }
  const auto max_batch = static_cast<std::size_t>(options_.max_batch);
  for (auto next = waiting_.begin(); next != waiting_.end() && running_.size() < max_batch;) {
    Sequence& sequence = *next->second;
    // Equal hashes of different prompts would only delay the second of them.
    if (prompts_in_work_.contains(sequence.prompt_hash)) {
      ++next;
      continue;
    }
    const auto reserve = static_cast<std::int32_t>(running_.size());
    const auto start = pool_.Begin(sequence.result.tokens, reserve, sequence.table);
    if (!start) return;
    if (start->copy) plan.copies.push_back(*start->copy);
    sequence.slot = free_slots_.back();
    free_slots_.pop_back();
    sequence.processed = start->positions;
    sequence.reached = std::max(sequence.reached, start->positions);
    sequence.history.Wrote(0, start->positions, version);
    counters_.prefix_hits += start->positions > 0;
    counters_.shared_tokens += start->positions;
    if (options_.prefix_sharing && ComputesPrompt(sequence)) {
      prompts_in_work_.insert(sequence.prompt_hash);
    }
    running_.insert(waiting_.extract(next++));
  }
}

void Scheduler::CutRows(StepPlan& plan) {
  auto chunk_left = static_cast<std::size_t>(options_.prefill_chunk);
  for (auto& [ordinal, sequence] : running_) {
    const std::size_t pending = sequence->pending();
    const bool decodes = pending == 1 && sequence->processed >= sequence->result.prompt_tokens;
    const std::size_t count = decodes ? 1 : std::min(pending, chunk_left);
    if (count == 0) continue;
    if (sequence->drawn > 0 && (sequence->IsComplete() || !options_.runs_ahead ||
                                !options_.runs_ahead(sequence->NextSampling()))) {
      continue;
    }
    if (!decodes) chunk_left -= count;
    const bool drawn = sequence->processed + count == sequence->length();
    plan.ranges.push_back({sequence.get(), sequence->processed, count, drawn});
  }
}

void Scheduler::Processed(const StepPlan& plan, PolicyVersion version) {
  for (const RowRange& range : plan.ranges) {
    Sequence& sequence = *range.sequence;
    const std::size_t end = range.begin + range.count;
    const std::size_t fresh = std::max(range.begin, std::min(end, sequence.reached));
    counters_.recomputed_tokens += fresh - range.begin;
    counters_.prefill_tokens +=
        std::max(fresh, std::min(end, sequence.result.prompt_tokens)) - fresh;
    sequence.history.Wrote(range.begin, end, version);
    sequence.processed = end;
    sequence.reached = std::max(sequence.reached, end);
    // The end of the prompt may lie within a page; of what is generated whole pages are enough.
    const bool in_prompt = end <= sequence.result.prompt_tokens;
    const std::size_t known = std::min(end, sequence.result.tokens.size());
    pool_.Publish(sequence.result.tokens, in_prompt ? end : known / kPageSize * kPageSize,
                  sequence.table);
    if (range.drawn) ++sequence.drawn;
  }
}

Sequence* Scheduler::Find(const TrajectoryId& id) {
  for (Queue* queue : {&running_, &waiting_}) {
    for (auto& [ordinal, sequence] : *queue) {
      if (sequence->request.id == id) return sequence.get();
    }
  }
  return nullptr;
}

std::unique_ptr<Sequence> Scheduler::Remove(const Sequence& sequence) {
  const std::uint64_t ordinal = sequence.ordinal;
  Queue& queue = running_.contains(ordinal) ? running_ : waiting_;
  auto node = queue.extract(ordinal);
  THRESHER_CHECK(!node.empty(), "removes a sequence that is not here");
  pool_.Release(node.mapped()->table);
  LeaveSlot(*node.mapped());
  return std::move(node.mapped());
}

std::vector<std::unique_ptr<Sequence>> Scheduler::RemoveAll() {
  std::vector<std::unique_ptr<Sequence>> all;
  for (Queue* queue : {&running_, &waiting_}) {
    while (!queue->empty()) all.push_back(Remove(*queue->begin()->second));
  }
  return all;
}

void Scheduler::ForgetPrefixes() {
  THRESHER_CHECK(running_.empty() && waiting_.empty(), "prefixes forgotten while sequences run");
  pool_.Clear();
}

}  // namespace thresher::actor
