#include "actor/engine/engine.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/clock.h"

namespace thresher::actor {
namespace {

float MillisecondsBetween(TimePoint a, TimePoint b) {
  return std::chrono::duration<float, std::milli>(b - a).count();
}

std::int32_t PagesOf(const model::ModelConfig& shape, const EngineOptions& options) {
  return options.kv_pages > 0
             ? options.kv_pages
             : options.max_batch * PagesFor(static_cast<std::size_t>(shape.context));
}

}  // namespace

Engine::Engine(const model::ModelConfig& shape, const EngineOptions& options,
               model::WorkspacePtr workspace)
    : Engine(shape, options,
             model::MakeCpuRunner(shape, PagesOf(shape, options), options.max_batch,
                                  std::move(workspace))) {}

Engine::Engine(const model::ModelConfig& shape, const EngineOptions& options,
               std::unique_ptr<model::StepRunner> runner)
    : shape_(shape), runner_(std::move(runner)) {
  THRESHER_CHECK(runner_->slots() >= options.max_batch, "fewer slots than sequences at once");
  SchedulerOptions plan;
  plan.max_batch = options.max_batch;
  plan.prefill_chunk = options.prefill_chunk;
  plan.prefix_sharing = options.prefix_sharing;
  plan.pages = runner_->pages();
  plan.runs_ahead = [runner = runner_.get()](const model::RowSampling& sampling) {
    return runner->RunsAhead(sampling);
  };
  scheduler_ = std::make_unique<Scheduler>(plan);
}

Result<Engine> MakeEngine(const model::ModelConfig& shape, const EngineOptions& options,
                          const Device& device, WorkerPool* pool) {
  backend::RunnerOptions runner;
  // A GPU takes as many as it has room for.
  runner.pages = device.kind == DeviceKind::kCpu ? PagesOf(shape, options) : options.kv_pages;
  runner.slots = options.max_batch;
  runner.max_rows = options.max_batch + options.prefill_chunk;
  runner.colocated = options.colocated;
  runner.pool = pool;
  THRESHER_ASSIGN_OR_RETURN(auto steps, backend::MakeRunner(device, shape, runner));
  return Engine(shape, options, std::move(steps));
}

Status Engine::SetWeights(std::shared_ptr<const model::PackedModel> weights,
                          PolicyVersion version) {
  THRESHER_CHECK(load() == 0, "weights swapped while sequences run");
  THRESHER_RETURN_IF_ERROR(failure_);
  THRESHER_RETURN_IF_ERROR(CollectRest());
  const std::int32_t valid_vocab = weights->valid_vocab();
  THRESHER_RETURN_IF_ERROR(runner_->SetWeights(std::move(weights)));
  scheduler_->ForgetPrefixes();
  valid_vocab_ = valid_vocab;
  version_ = version;
  return Status::Ok();
}

// Rows of sequences that have gone.
Status Engine::CollectRest() {
  while (!on_their_way_.empty()) {
    THRESHER_RETURN_IF_ERROR(Collect().status());
  }
  return Status::Ok();
}

Status Engine::ReleaseMemory() {
  THRESHER_CHECK(load() == 0, "memory given back while sequences run");
  THRESHER_RETURN_IF_ERROR(failure_);
  THRESHER_RETURN_IF_ERROR(CollectRest());
  scheduler_->ForgetPrefixes();
  runner_->Release();
  return Status::Ok();
}

Status Engine::Submit(GenerationRequest request) {
  THRESHER_RETURN_IF_ERROR(failure_);
  if (!has_weights()) {
    return FailedPrecondition(request.id.ToString() + ": the engine has no weights");
  }
  THRESHER_RETURN_IF_ERROR(CheckRequest(request, shape_, *valid_vocab_, runner_->pages()));
  auto sequence = std::make_unique<Sequence>(std::move(request), shape_.vocab);
  if (sequence->EndsInPrefix()) {
    return InvalidArgument(sequence->request.id.ToString() + ": prefix: it has a stop string");
  }
  sequence->submitted = SystemClock().Now();
  scheduler_->Add(std::move(sequence));
  return Status::Ok();
}

void Engine::BuildStep(const StepPlan& plan) {
  step_.Clear();
  step_.copies = plan.copies;
  for (const RowRange& range : plan.ranges) {
    const std::vector<std::int32_t>& tokens = range.sequence->result.tokens;
    for (std::size_t position = range.begin; position < range.begin + range.count; ++position) {
      step_.token.push_back(position < tokens.size() ? tokens[position] : model::kDrawnBefore);
      step_.position.push_back(static_cast<std::int32_t>(position));
      step_.slot.push_back(range.sequence->slot);
      step_.table.push_back(range.sequence->table.pages);
    }
    if (!range.drawn) continue;
    step_.draws.push_back(
        {step_.rows() - 1, range.sequence->NextSampling(), range.sequence->request.stop_tokens});
  }
}

Result<bool> Engine::Launch() {
  const bool ahead = !on_their_way_.empty();
  const StepPlan plan = scheduler_->Plan(version_, ahead);
  if (plan.ranges.empty()) return false;
  const TimePoint now = SystemClock().Now();
  for (const RowRange& range : plan.ranges) {
    if (!std::exchange(range.sequence->was_admitted, true)) range.sequence->admitted = now;
  }
  BuildStep(plan);
  failure_ = runner_->Launch(step_);
  THRESHER_RETURN_IF_ERROR(failure_);
  scheduler_->Processed(plan, version_);
  Drawn& drawn = on_their_way_.emplace_back();
  for (const RowRange& range : plan.ranges) {
    if (range.drawn) drawn.push_back(range.sequence);
  }
  ++counters_.steps;
  return true;
}

Result<std::vector<Sequence*>> Engine::Collect() {
  auto collected = runner_->Collect();
  failure_ = collected.status();
  THRESHER_ASSIGN_OR_RETURN(std::vector<model::RowSample> samples, std::move(collected));
  const Drawn drawn = std::move(on_their_way_.front());
  on_their_way_.pop_front();
  THRESHER_CHECK(samples.size() == drawn.size(), "a step with other draws than were asked for");
  std::vector<Sequence*> ended;
  const TimePoint now = SystemClock().Now();
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    if (drawn[i] == nullptr) continue;
    Sequence& sequence = *drawn[i];
    if (sequence.first_token == TimePoint{}) sequence.first_token = now;
    const std::size_t position = sequence.result.tokens.size();
    if (sequence.Take(std::move(samples[i]), version_)) ended.push_back(&sequence);
    if (sequence.result.tokens.size() == position) continue;  // it failed
    ++counters_.decode_tokens;
    fresh_tokens_.push_back({sequence.result.id, static_cast<std::uint32_t>(position),
                             sequence.result.tokens.back(), sequence.result.logprobs.back()});
  }
  return ended;
}

void Engine::Forget(const Sequence& sequence) {
  for (Drawn& drawn : on_their_way_) {
    std::replace(drawn.begin(), drawn.end(), const_cast<Sequence*>(&sequence),
                 static_cast<Sequence*>(nullptr));
  }
}

GenerationResult Engine::Finish(const Sequence& sequence) {
  Forget(sequence);
  const std::unique_ptr<Sequence> done = scheduler_->Remove(sequence);
  const TimePoint now = SystemClock().Now();
  GenerationResult& result = done->result;
  // Of the last token nothing is needed; who runs ahead may have computed it.
  done->history.Truncate(result.tokens.size() - 1);
  result.kv_history = done->history.spans();
  const TimePoint admitted = done->was_admitted ? done->admitted : now;
  const TimePoint first = done->first_token == TimePoint{} ? now : done->first_token;
  result.timings.queue_ms = MillisecondsBetween(done->submitted, admitted);
  result.timings.prefill_ms = MillisecondsBetween(admitted, first);
  result.timings.decode_ms = MillisecondsBetween(first, now);
  return std::move(result);
}

Result<std::vector<GenerationResult>> Engine::Step() {
  fresh_tokens_.clear();
  THRESHER_RETURN_IF_ERROR(failure_);
  const TimePoint start = SystemClock().Now();
  std::vector<GenerationResult> finished;
  while (on_their_way_.size() < static_cast<std::size_t>(runner_->depth())) {
    THRESHER_ASSIGN_OR_RETURN(const bool launched, Launch());
    if (!launched) break;
  }
  if (on_their_way_.empty()) return finished;
  THRESHER_ASSIGN_OR_RETURN(const std::vector<Sequence*> ended, Collect());
  for (const Sequence* sequence : ended) finished.push_back(Finish(*sequence));
  counters_.finished += finished.size();
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(SystemClock().Now() - start).count();
  counters_.longest_step_ms =
      std::max(counters_.longest_step_ms, static_cast<std::uint32_t>(milliseconds));
  return finished;
}

std::optional<GenerationResult> Engine::SoFar(const TrajectoryId& id) const {
  const Sequence* sequence = scheduler_->Find(id);
  if (sequence == nullptr || sequence->result.logprobs.empty()) return std::nullopt;
  return sequence->SoFar();
}

std::optional<GenerationResult> Engine::Cancel(const TrajectoryId& id) {
  const Sequence* sequence = scheduler_->Find(id);
  if (sequence == nullptr) return std::nullopt;
  GenerationResult result = Finish(*sequence);
  result.finish = FinishReason::kCancelled;
  ++counters_.cancelled;
  return result;
}

std::vector<TrajectoryId> Engine::CancelAll() {
  std::vector<TrajectoryId> ids;
  for (const auto& sequence : scheduler_->RemoveAll()) {
    Forget(*sequence);
    ids.push_back(sequence->request.id);
  }
  counters_.cancelled += ids.size();
  return ids;
}

EngineCounters Engine::counters() const {
  EngineCounters out = counters_;
  const SchedulerCounters& decided = scheduler_->counters();
  out.prefill_tokens = decided.prefill_tokens;
  out.recomputed_tokens = decided.recomputed_tokens;
  out.prefix_hits = decided.prefix_hits;
  out.shared_tokens = decided.shared_tokens;
  out.preemptions = decided.preemptions;
  out.running = static_cast<std::uint32_t>(scheduler_->running());
  out.waiting = static_cast<std::uint32_t>(scheduler_->waiting());
  const PagePool& pool = scheduler_->pool();
  out.pages_used = static_cast<std::uint32_t>(pool.used());
  out.pages_shared = static_cast<std::uint32_t>(pool.shared());
  out.pages_retained = static_cast<std::uint32_t>(pool.retained());
  out.pages_free = static_cast<std::uint32_t>(pool.available() - pool.retained());
  return out;
}

}  // namespace thresher::actor
