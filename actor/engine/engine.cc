#include "actor/engine/engine.h"

#include <algorithm>
#include <utility>

#include "common/base/clock.h"

namespace thresher::actor {
namespace {

float MillisecondsBetween(TimePoint a, TimePoint b) {
  return std::chrono::duration<float, std::milli>(b - a).count();
}

SchedulerOptions SchedulerOptionsOf(const model::ModelConfig& shape, const EngineOptions& options) {
  SchedulerOptions out;
  out.max_batch = options.max_batch;
  out.prefill_chunk = options.prefill_chunk;
  out.prefix_sharing = options.prefix_sharing;
  out.pages = options.kv_pages > 0
                  ? options.kv_pages
                  : options.max_batch * PagesFor(static_cast<std::size_t>(shape.context));
  return out;
}

}  // namespace

Engine::Engine(const model::ModelConfig& shape, const EngineOptions& options,
               model::WorkspacePtr workspace)
    : shape_(shape),
      cache_(shape, SchedulerOptionsOf(shape, options).pages),
      scheduler_(std::make_unique<Scheduler>(SchedulerOptionsOf(shape, options))),
      workspace_(std::move(workspace)) {}

void Engine::SetWeights(std::shared_ptr<const model::PackedModel> weights, PolicyVersion version) {
  THRESHER_CHECK(load() == 0, "weights swapped while sequences run");
  scheduler_->ForgetPrefixes();
  weights_ = std::move(weights);
  version_ = version;
}

Status Engine::Submit(GenerationRequest request) {
  if (!has_weights()) {
    return FailedPrecondition(request.id.ToString() + ": the engine has no weights");
  }
  THRESHER_RETURN_IF_ERROR(CheckRequest(request, shape_, weights_->valid_vocab(), cache_.pages()));
  auto sequence = std::make_unique<Sequence>(std::move(request), shape_.vocab);
  sequence->submitted = SystemClock().Now();
  scheduler_->Add(std::move(sequence));
  return Status::Ok();
}

void Engine::CopyPage(const PageCopy& copy) {
  const std::size_t floats = cache_.page_stride_floats();
  for (int layer = 0; layer < shape_.layers; ++layer) {
    for (float* pages : {cache_.layer_keys(layer), cache_.layer_values(layer)}) {
      const float* from = pages + floats * static_cast<std::size_t>(copy.from);
      std::copy(from, from + floats, pages + floats * static_cast<std::size_t>(copy.to));
    }
  }
}

void Engine::BuildRows(const StepPlan& plan) {
  rows_.token.clear();
  rows_.position.clear();
  rows_.page_table.clear();
  for (const RowRange& range : plan.ranges) {
    for (std::size_t position = range.begin; position < range.begin + range.count; ++position) {
      rows_.token.push_back(range.sequence->result.tokens[position]);
      rows_.position.push_back(static_cast<std::int32_t>(position));
      rows_.page_table.push_back(range.sequence->table.pages.data());
    }
  }
}

std::vector<Sequence*> Engine::SampleRows(const StepPlan& plan) {
  const auto width = static_cast<std::size_t>(shape_.width);
  std::vector<Sequence*> sampled, ended;
  sampled_hidden_.clear();
  sampling_.clear();
  std::size_t rows = 0;
  for (const RowRange& range : plan.ranges) {
    rows += range.count;
    if (!range.sampled()) continue;
    const float* row = hidden_.data() + (rows - 1) * width;
    sampled_hidden_.insert(sampled_hidden_.end(), row, row + width);
    sampling_.push_back(range.sequence->NextSampling());
    sampled.push_back(range.sequence);
  }
  if (sampled.empty()) return ended;
  auto samples = model::Sample(*weights_, sampled_hidden_, sampling_, *workspace_);
  const TimePoint now = SystemClock().Now();
  for (std::size_t i = 0; i < sampled.size(); ++i) {
    Sequence& sequence = *sampled[i];
    if (sequence.result.logprobs.empty()) sequence.first_token = now;
    const std::size_t position = sequence.result.tokens.size();
    if (sequence.Take(std::move(samples[i]), version_)) ended.push_back(&sequence);
    if (sequence.result.tokens.size() == position) continue;  // it failed
    ++counters_.decode_tokens;
    fresh_tokens_.push_back({sequence.result.id, static_cast<std::uint32_t>(position),
                             sequence.result.tokens.back(), sequence.result.logprobs.back()});
  }
  return ended;
}

GenerationResult Engine::Finish(const Sequence& sequence) {
  const std::unique_ptr<Sequence> done = scheduler_->Remove(sequence);
  const TimePoint now = SystemClock().Now();
  GenerationResult& result = done->result;
  result.kv_history = done->history.spans();
  const TimePoint admitted = done->was_admitted ? done->admitted : now;
  const TimePoint first = result.logprobs.empty() ? now : done->first_token;
  result.timings.queue_ms = MillisecondsBetween(done->submitted, admitted);
  result.timings.prefill_ms = MillisecondsBetween(admitted, first);
  result.timings.decode_ms = MillisecondsBetween(first, now);
  return std::move(result);
}

std::vector<GenerationResult> Engine::Step() {
  fresh_tokens_.clear();
  const TimePoint start = SystemClock().Now();
  const StepPlan plan = scheduler_->Plan(version_);
  if (plan.ranges.empty()) return {};
  for (const RowRange& range : plan.ranges) {
    if (!std::exchange(range.sequence->was_admitted, true)) range.sequence->admitted = start;
  }
  for (const PageCopy& copy : plan.copies) CopyPage(copy);
  BuildRows(plan);
  hidden_.resize(static_cast<std::size_t>(rows_.rows()) * static_cast<std::size_t>(shape_.width));
  model::Forward(*weights_, rows_, cache_, *workspace_, hidden_);
  scheduler_->Processed(plan, version_);
  std::vector<GenerationResult> finished;
  for (const Sequence* sequence : SampleRows(plan)) finished.push_back(Finish(*sequence));
  ++counters_.steps;
  counters_.finished += finished.size();
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(SystemClock().Now() - start).count();
  counters_.longest_step_ms =
      std::max(counters_.longest_step_ms, static_cast<std::uint32_t>(milliseconds));
  return finished;
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
  for (const auto& sequence : scheduler_->RemoveAll()) ids.push_back(sequence->request.id);
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
