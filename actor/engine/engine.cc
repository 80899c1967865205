#include "actor/engine/engine.h"

#include <algorithm>

#include "common/base/clock.h"

namespace thresher::actor {
namespace {

constexpr std::int32_t kPageSize = 16;  // positions of a KV page (common/model/forward.h)

float MillisecondsBetween(TimePoint a, TimePoint b) {
  return std::chrono::duration<float, std::milli>(b - a).count();
}

std::int32_t PagesFor(std::size_t positions) {
  return static_cast<std::int32_t>((positions + kPageSize - 1) / kPageSize);
}

std::int32_t CachePages(const model::ModelConfig& shape, const EngineOptions& options) {
  if (options.kv_pages > 0) return options.kv_pages;
  return options.max_batch * PagesFor(static_cast<std::size_t>(shape.context));
}

}  // namespace

Engine::Engine(const model::ModelConfig& shape, const EngineOptions& options)
    : shape_(shape),
      options_(options),
      cache_(shape, CachePages(shape, options)),
      pages_(CachePages(shape, options)),
      workspace_(model::NewWorkspace()) {}

void Engine::SetWeights(std::shared_ptr<const model::PackedModel> weights, PolicyVersion version) {
  THRESHER_CHECK(load() == 0, "weights swapped while sequences run");
  weights_ = std::move(weights);
  version_ = version;
}

std::int32_t Engine::PagesNeeded(const GenerationRequest& request) const {
  return PagesFor(request.prompt.size() + request.sampling.max_new_tokens);
}

Status Engine::Submit(GenerationRequest request) {
  const std::string name = request.id.ToString();
  if (!has_weights()) return FailedPrecondition(name + ": the engine has no weights");
  if (request.prompt.empty()) return InvalidArgument(name + ": the prompt is empty");
  for (std::int32_t token : request.prompt) {
    if (token < 0 || token >= shape_.vocab) {
      return InvalidArgument(name + ": prompt token " + std::to_string(token) + "; allowed: 0 to " +
                             std::to_string(shape_.vocab - 1));
    }
  }
  std::size_t longest = request.prompt.size() + request.sampling.max_new_tokens;
  if (request.sampling.max_new_tokens < 1 || longest > static_cast<std::size_t>(shape_.context)) {
    return OutOfRange(name + ": prompt of " + std::to_string(request.prompt.size()) +
                      " tokens and max_new_tokens " +
                      std::to_string(request.sampling.max_new_tokens) +
                      " do not fit the context of " + std::to_string(shape_.context));
  }
  if (PagesNeeded(request) > cache_.pages()) {
    return OutOfRange(name + ": needs " + std::to_string(PagesNeeded(request)) +
                      " KV pages; the cache has " + std::to_string(cache_.pages()));
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->submitted = SystemClock().Now();
  sequence->result.id = request.id;
  sequence->result.prompt_tokens = request.prompt.size();
  sequence->result.tokens = request.prompt;
  sequence->request = std::move(request);
  waiting_.push_back(std::move(sequence));
  return Status::Ok();
}

void Engine::Admit() {
  while (!waiting_.empty() && running_.size() < static_cast<std::size_t>(options_.max_batch)) {
    auto pages = pages_.Take(PagesNeeded(waiting_.front()->request));
    if (!pages.ok()) return;  // first in, first out: a long one is not overtaken for ever
    waiting_.front()->pages = std::move(pages).value();
    waiting_.front()->admitted = SystemClock().Now();
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Engine::BuildRows(std::vector<Sequence*>& sampled, std::vector<std::int32_t>& sampled_rows) {
  rows_.token.clear();
  rows_.position.clear();
  rows_.page_table.clear();
  std::int32_t prefill_left = options_.prefill_chunk;
  for (auto& sequence : running_) {
    const auto& tokens = sequence->result.tokens;
    std::size_t pending = tokens.size() - sequence->processed;
    bool prefill = sequence->processed < sequence->request.prompt.size();
    std::size_t take =
        prefill ? std::min(pending, static_cast<std::size_t>(prefill_left)) : pending;
    if (prefill) {
      prefill_left -= static_cast<std::int32_t>(take);
      counters_.prefill_tokens += take;
    }
    for (std::size_t i = 0; i < take; ++i) {
      std::size_t position = sequence->processed + i;
      rows_.token.push_back(tokens[position]);
      rows_.position.push_back(static_cast<std::int32_t>(position));
      rows_.page_table.push_back(sequence->pages.data());
    }
    sequence->processed += take;
    if (take > 0 && take == pending) {
      sampled.push_back(sequence.get());
      sampled_rows.push_back(rows_.rows() - 1);
    }
  }
}

void Engine::SampleRows(const std::vector<Sequence*>& sampled,
                        const std::vector<std::int32_t>& sampled_rows) {
  const std::size_t width = static_cast<std::size_t>(shape_.width);
  const std::size_t count = sampled.size();
  sampled_hidden_.resize(count * width);
  std::vector<float> temperature(count);
  std::vector<double> uniform(count);
  for (std::size_t i = 0; i < count; ++i) {
    const float* row = hidden_.data() + static_cast<std::size_t>(sampled_rows[i]) * width;
    std::copy(row, row + width, sampled_hidden_.data() + i * width);
    const GenerationRequest& request = sampled[i]->request;
    temperature[i] = request.sampling.temperature;
    RandomStream random(request.run_seed, request.id, RandomPurpose::kSample);
    uniform[i] = random.Uniform(static_cast<std::uint32_t>(sampled[i]->result.tokens.size()));
  }
  std::vector<std::int32_t> token(count);
  std::vector<float> logprob(count);
  model::Sample(*weights_, sampled_hidden_, temperature, uniform, *workspace_, token, logprob);
  TimePoint now = SystemClock().Now();
  for (std::size_t i = 0; i < count; ++i) {
    if (sampled[i]->result.logprobs.empty()) sampled[i]->first_token = now;
    sampled[i]->result.tokens.push_back(token[i]);
    sampled[i]->result.logprobs.push_back(logprob[i]);
  }
  counters_.decode_tokens += count;
}

bool Engine::IsFinished(const Sequence& sequence) const {
  const GenerationResult& result = sequence.result;
  if (result.logprobs.empty()) return false;
  return result.tokens.back() == sequence.request.stop_token ||
         result.logprobs.size() >= sequence.request.sampling.max_new_tokens;
}

GenerationResult Engine::Finish(Sequence& sequence) {
  GenerationResult& result = sequence.result;
  bool stop = result.tokens.back() == sequence.request.stop_token;
  result.finish = stop ? FinishReason::kStop : FinishReason::kLength;
  auto prompt = static_cast<std::uint32_t>(result.prompt_tokens);
  auto total = static_cast<std::uint32_t>(result.tokens.size());
  result.versions = {{prompt, total, version_}};
  // The last token was sampled, never processed: it has no keys and values.
  result.kv_history = {{0, total - 1, version_, false}};
  result.timings.queue_ms = MillisecondsBetween(sequence.submitted, sequence.admitted);
  result.timings.prefill_ms = MillisecondsBetween(sequence.admitted, sequence.first_token);
  result.timings.decode_ms = MillisecondsBetween(sequence.first_token, SystemClock().Now());
  pages_.Give(sequence.pages);
  ++counters_.finished;
  return std::move(result);
}

std::vector<GenerationResult> Engine::CollectFinished() {
  std::vector<GenerationResult> out;
  std::vector<std::unique_ptr<Sequence>> still_running;
  still_running.reserve(running_.size());
  for (auto& sequence : running_) {
    if (IsFinished(*sequence)) {
      out.push_back(Finish(*sequence));
    } else {
      still_running.push_back(std::move(sequence));
    }
  }
  running_ = std::move(still_running);
  return out;
}

std::vector<GenerationResult> Engine::Step() {
  Admit();
  if (running_.empty()) return {};
  TimePoint start = SystemClock().Now();
  std::vector<Sequence*> sampled;
  std::vector<std::int32_t> sampled_rows;
  BuildRows(sampled, sampled_rows);
  hidden_.resize(static_cast<std::size_t>(rows_.rows()) * static_cast<std::size_t>(shape_.width));
  model::Forward(*weights_, rows_, cache_, *workspace_, hidden_);
  if (!sampled.empty()) SampleRows(sampled, sampled_rows);
  ++counters_.steps;
  auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(SystemClock().Now() - start).count();
  counters_.longest_step_ms =
      std::max(counters_.longest_step_ms, static_cast<std::uint32_t>(milliseconds));
  return CollectFinished();
}

std::vector<TrajectoryId> Engine::CancelAll() {
  std::vector<TrajectoryId> ids;
  for (auto& sequence : running_) {
    pages_.Give(sequence->pages);
    ids.push_back(sequence->request.id);
  }
  for (auto& sequence : waiting_) ids.push_back(sequence->request.id);
  running_.clear();
  waiting_.clear();
  return ids;
}

}  // namespace thresher::actor
