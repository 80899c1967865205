#include "actor/rollout.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "common/base/clock.h"
#include "common/config/sampling.h"

namespace thresher::actor {
namespace {

double RewardOf(const TaskConfig& config, const Outcome& outcome) {
  switch (outcome.kind) {
    case OutcomeKind::kScored:
      return outcome.score;
    case OutcomeKind::kUnparsable:
      return config.reward_unparsable;
    case OutcomeKind::kTimedOut:
      return config.reward_timed_out;
    case OutcomeKind::kCrashed:
      return config.reward_crashed;
    case OutcomeKind::kRejected:
      return config.reward_rejected;
  }
  THRESHER_CHECK(false, "unknown outcome kind");
}

}  // namespace

tasks::TaskOptions TaskOptionsOf(const TaskConfig& config) {
  tasks::TaskOptions options = tasks::DefaultTaskOptions(config.name);
  options.numbers = config.numbers;
  options.max_number = config.max_number;
  options.min_target = config.min_target;
  options.max_target = config.max_target;
  options.use_all = config.use_all;
  options.heldout_fraction = config.heldout_fraction;
  return options;
}

Rollout::Rollout(const Config& config, const model::Tokenizer& tokenizer,
                 std::unique_ptr<tasks::Environment> environment,
                 std::unique_ptr<examples::SupervisedSource> examples)
    : config_(config),
      tokenizer_(tokenizer),
      environment_(std::move(environment)),
      examples_(std::move(examples)) {}

Result<std::unique_ptr<Rollout>> Rollout::Make(
    const Config& config, const model::Tokenizer& tokenizer,
    std::unique_ptr<examples::SupervisedSource> examples) {
  THRESHER_ASSIGN_OR_RETURN(auto environment, tasks::MakeEnvironment(TaskOptionsOf(config.task)));
  for (char c : environment->alphabet()) {
    auto ids = tokenizer.Encode(std::string(1, c));
    if (ids.size() != 1 || ids[0] == model::Tokenizer::kUnk) {
      return InvalidArgument("task " + environment->name() + ": the tokenizer has no '" +
                             std::string(1, c) + "'");
    }
  }
  return std::unique_ptr<Rollout>(
      new Rollout(config, tokenizer, std::move(environment), std::move(examples)));
}

std::vector<std::int32_t> Rollout::PromptTokens(const tasks::Item& item) const {
  std::vector<std::int32_t> tokens = {model::Tokenizer::kBos};
  for (std::int32_t id : tokenizer_.Encode(item.prompt)) tokens.push_back(id);
  return tokens;
}

SamplingParams Rollout::Sampling(const SampleSpec& spec) const {
  SamplingParams sampling = SamplingOf(config_, spec.id.stream);
  sampling.temperature = spec.temperature;
  sampling.max_new_tokens = spec.max_new_tokens;
  return sampling;
}

GenerationRequest Rollout::Request(const SampleSpec& spec) const {
  tasks::Item item = environment_->Generate(config_.run.seed, spec.id.stream, spec.id.item);
  GenerationRequest request;
  request.id = spec.id;
  request.prompt = PromptTokens(item);
  request.sampling = Sampling(spec);
  request.run_seed = config_.run.seed;
  request.stop_tokens = {model::Tokenizer::kEos};
  return request;
}

Outcome Rollout::Grade(const tasks::Item& item, const std::string& text) const {
  tasks::Verdict verdict = environment_->Verify(item, text);
  Outcome outcome;
  outcome.kind = verdict.kind;
  outcome.score = outcome.kind == OutcomeKind::kScored ? verdict.score : 0.0;
  outcome.reason = verdict.reason;
  for (const auto& [name, value] : verdict.subscores) outcome.subscores.push_back({name, value});
  outcome.reward = RewardOf(config_.task, outcome);
  return outcome;
}

Trajectory Rollout::NewRecord(const SampleSpec& spec, const tasks::Item& item,
                              std::size_t prompt_tokens) const {
  Trajectory record;
  record.id = spec.id;
  record.group_size = spec.group_size;
  record.pinned = spec.pinned;
  record.instance_hash = item.canonical_hash;
  record.task = environment_->name();
  record.segments.push_back({0, static_cast<std::uint32_t>(prompt_tokens), Role::kPrompt, false});
  return record;
}

Trajectory Rollout::Generated(const SampleSpec& spec, const tasks::Item& item,
                              const GenerationResult& result) const {
  Trajectory record = NewRecord(spec, item, result.prompt_tokens);
  record.tokens = result.tokens;
  record.prompt_hash = HashTokens(record.tokens, result.prompt_tokens);
  record.segments.push_back({static_cast<std::uint32_t>(result.prompt_tokens),
                             static_cast<std::uint32_t>(record.tokens.size()), Role::kPolicy,
                             true});
  record.logprobs = result.logprobs;
  record.kept_mass_logprobs = result.kept_mass_logprobs;
  record.versions = result.versions;
  record.kv_history = result.kv_history;
  record.sampling = Sampling(spec);
  record.finish = result.finish;
  record.timings = result.timings;
  return record;
}

Trajectory Rollout::Finish(const SampleSpec& spec, const GenerationResult& result) const {
  tasks::Item item = environment_->Generate(config_.run.seed, spec.id.stream, spec.id.item);
  Trajectory record = Generated(spec, item, result);
  auto policy = std::span(record.tokens).subspan(result.prompt_tokens);
  if (result.finish == FinishReason::kStop) policy = policy.first(policy.size() - 1);
  record.text = tokenizer_.Decode(policy, true);
  TimePoint start = SystemClock().Now();
  record.outcome = Grade(item, record.text);
  record.timings.grade_ms =
      std::chrono::duration<float, std::milli>(SystemClock().Now() - start).count();
  return record;
}

Trajectory Rollout::Prefix(const SampleSpec& spec, const GenerationResult& so_far) const {
  return Generated(spec, environment_->Generate(config_.run.seed, spec.id.stream, spec.id.item),
                   so_far);
}

Result<GeneratedPrefix> Rollout::Continue(const SampleSpec& spec, const GenerationRequest& request,
                                          const Trajectory& prefix) {
  const auto differs = [&](const char* what) {
    return FailedPrecondition("prefix of " + spec.id.ToString() + ": " + what);
  };
  const std::size_t prompt = request.prompt.size();
  if (prefix.id != spec.id) return differs("it is another sample's");
  if (prefix.finish != FinishReason::kCancelled) return differs("it is no prefix");
  if (prefix.pinned != spec.pinned) return differs("generated for another version");
  const auto other = [&](const auto& span) { return span.version != spec.pinned; };
  if (std::any_of(prefix.versions.begin(), prefix.versions.end(), other) ||
      std::any_of(prefix.kv_history.begin(), prefix.kv_history.end(), other)) {
    return differs("not generated by the pinned version throughout");
  }
  if (prefix.sampling != request.sampling) return differs("sampled otherwise");
  if (prefix.tokens.size() <= prompt ||
      prefix.PolicyTokenCount() != prefix.tokens.size() - prompt ||
      !std::equal(request.prompt.begin(), request.prompt.end(), prefix.tokens.begin())) {
    return differs("its prompt is another one");
  }
  GeneratedPrefix so_far;
  so_far.tokens.assign(prefix.tokens.begin() + static_cast<std::ptrdiff_t>(prompt),
                       prefix.tokens.end());
  so_far.logprobs = prefix.logprobs;
  so_far.kept_mass_logprobs = prefix.kept_mass_logprobs;
  so_far.versions = prefix.versions;
  so_far.kv_history = prefix.kv_history;
  return so_far;
}

Result<Trajectory> Rollout::Reference(const SampleSpec& spec) const {
  if (examples_ == nullptr) return TaskTrace(spec);
  THRESHER_ASSIGN_OR_RETURN(const auto example, examples_->At(spec.id.item));
  return example.Record(spec.id, environment_->name());
}

Trajectory Rollout::TaskTrace(const SampleSpec& spec) const {
  tasks::Item item = environment_->Generate(config_.run.seed, spec.id.stream, spec.id.item);
  RandomSequence random(config_.run.seed, spec.id, RandomPurpose::kReference);
  double kind = random.NextUniform();
  std::string text;
  if (kind < config_.supervised.off_target) {
    text = environment_->OffTarget(item, random);
  } else if (kind < config_.supervised.off_target + config_.supervised.perturbed) {
    text = environment_->Perturb(item, random);
  } else {
    text = environment_->Reference(item, random);
  }
  std::vector<std::int32_t> prompt = PromptTokens(item);
  Trajectory record = NewRecord(spec, item, prompt.size());
  record.tokens = prompt;
  for (std::int32_t id : tokenizer_.Encode(text)) record.tokens.push_back(id);
  record.tokens.push_back(model::Tokenizer::kEos);
  record.prompt_hash = HashTokens(record.tokens, prompt.size());
  record.segments.push_back({static_cast<std::uint32_t>(prompt.size()),
                             static_cast<std::uint32_t>(record.tokens.size()), Role::kPolicy,
                             true});
  record.finish = FinishReason::kReference;
  record.text = text;
  record.outcome = Grade(item, text);
  return record;
}

}  // namespace thresher::actor
