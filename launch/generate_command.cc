#include <unistd.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "actor/engine/engine.h"
#include "common/log/log.h"
#include "common/model/kernel_choice.h"
#include "common/model/tokenizer/stream_decoder.h"
#include "kernels/cpu/dispatch.h"
#include "launch/commands.h"
#include "launch/compute.h"
#include "launch/generate_prompts.h"
#include "launch/policy.h"

namespace thresher::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint32_t kDefaultNewTokens = 256;
constexpr std::size_t kQueued = 2;  // times max_batch: requests in the engine at once

const char* FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kReference:
      return "reference";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

// What the options leave open, generation_config.json answers; what that leaves open is neutral.
SamplingParams SamplingOf(const GenerateOptions& options, const model::GenerationDefaults& model) {
  SamplingParams sampling;
  const auto greedy = model.do_sample.has_value() && !*model.do_sample;
  sampling.temperature = static_cast<float>(
      options.temperature.value_or(greedy ? 0.0 : model.temperature.value_or(1.0)));
  sampling.top_k = static_cast<std::uint32_t>(options.top_k.value_or(model.top_k.value_or(0)));
  sampling.top_p = static_cast<float>(options.top_p.value_or(model.top_p.value_or(1.0)));
  sampling.min_p = static_cast<float>(options.min_p.value_or(model.min_p.value_or(0.0)));
  sampling.repetition_penalty = static_cast<float>(
      options.repetition_penalty.value_or(model.repetition_penalty.value_or(1.0)));
  return sampling;
}

// A model's text for a terminal: of its control characters only line ends and tabs act.
std::string ForTerminal(const std::string& text) {
  std::string out;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = text.find_first_of("\n\t", begin);
    out += Visible(std::string_view(text).substr(begin, end - begin));
    if (end == std::string::npos) return out;
    out += text[end];
    begin = end + 1;
  }
}

actor::EngineOptions EngineOptionsOf(const GenerateOptions& options) {
  actor::EngineOptions engine;
  engine.max_batch = options.max_batch;
  engine.kv_pages = options.kv_pages;
  return engine;
}

// Submits the samples of all prompts in order, and shows them in that order.
class Generation {
 public:
  // `engine` has the policy's weights.
  Generation(const GenerateOptions& options, const LoadedPolicy& policy,
             std::vector<Prompt> prompts, actor::Engine engine)
      : options_(options),
        policy_(policy),
        prompts_(std::move(prompts)),
        sampling_(SamplingOf(options, policy.defaults)),
        engine_(std::move(engine)),
        streams_(!options.json && Total() == 1) {}

  // True if every sample came to an end of its own. Errors: the engine's.
  Result<bool> Run() {
    while (shown_ < Total()) {
      while (submitted_ < Total() &&
             engine_.load() < kQueued * static_cast<std::size_t>(options_.max_batch)) {
        Submit(submitted_++);
      }
      THRESHER_ASSIGN_OR_RETURN(auto finished, engine_.Step());
      for (auto& result : finished) {
        const std::uint64_t ordinal = OrdinalOf(result.id);
        Finish(ordinal, std::move(result));
      }
      if (streams_) Stream();
      ShowReady();
    }
    return all_;
  }

 private:
  struct Done {
    actor::GenerationResult result;
    Status status = Status::Ok();
  };

  std::uint64_t Total() const {
    return prompts_.size() * static_cast<std::uint64_t>(options_.samples);
  }
  const Prompt& PromptOf(std::uint64_t ordinal) const {
    return prompts_[ordinal / static_cast<std::uint64_t>(options_.samples)];
  }
  TrajectoryId IdOf(std::uint64_t ordinal) const {
    const auto samples = static_cast<std::uint64_t>(options_.samples);
    return {Stream::kUser, 0, ordinal / samples, static_cast<std::uint32_t>(ordinal % samples)};
  }
  std::uint64_t OrdinalOf(const TrajectoryId& id) const {
    return id.item * static_cast<std::uint64_t>(options_.samples) + id.sample;
  }

  // What the options say, else what the model recommends, else what is left of the context.
  std::uint32_t NewTokens(std::size_t prompt) const {
    if (options_.max_new_tokens > 0) return static_cast<std::uint32_t>(options_.max_new_tokens);
    const auto context = static_cast<std::size_t>(policy_.weights->config().context);
    const auto wanted =
        static_cast<std::size_t>(policy_.defaults.max_new_tokens.value_or(kDefaultNewTokens));
    const std::size_t left = prompt < context ? context - prompt : 1;
    return static_cast<std::uint32_t>(std::min(wanted, left));
  }

  void Submit(std::uint64_t ordinal) {
    const Prompt& prompt = PromptOf(ordinal);
    Status status = prompt.status;
    if (status.ok()) {
      actor::GenerationRequest request;
      request.id = IdOf(ordinal);
      request.prompt = prompt.tokens;
      request.sampling = sampling_;
      request.sampling.max_new_tokens = NewTokens(prompt.tokens.size());
      request.run_seed = options_.seed;
      if (!options_.ignore_eos) request.stop_tokens = policy_.defaults.eos_ids;
      request.stop_strings = options_.stop;
      if (!options_.stop.empty()) {
        auto decoder = std::make_shared<model::StreamDecoder>(*policy_.tokenizer);
        request.decode = [decoder](std::int32_t token) { return decoder->Append(token); };
      }
      request.top_logprobs = options_.top_logprobs;
      status = engine_.Submit(std::move(request));
    }
    if (!status.ok()) done_[ordinal].status = status;
  }

  void Finish(std::uint64_t ordinal, actor::GenerationResult result) {
    if (result.finish == FinishReason::kError) done_[ordinal].status = InternalError(result.error);
    done_[ordinal].result = std::move(result);
  }

  // The one sample, as it comes. An end-of-sequence token is no text.
  void Stream() {
    if (policy_.tokenizer == nullptr) return;
    if (stream_ == nullptr) stream_ = std::make_unique<model::StreamDecoder>(*policy_.tokenizer);
    for (const auto& fresh : engine_.fresh_tokens()) Print(stream_->Append(fresh.token));
  }

  void ShowReady() {
    for (auto next = done_.find(shown_); next != done_.end(); next = done_.find(++shown_)) {
      options_.json ? ShowJson(next->first, next->second) : ShowText(next->first, next->second);
      all_ &= next->second.status.ok();
      done_.erase(next);
    }
  }

  std::string TextOf(const actor::GenerationResult& result) const {
    if (policy_.tokenizer == nullptr) return "";
    return policy_.tokenizer->Decode(std::span(result.tokens).subspan(result.prompt_tokens));
  }

  void ShowText(std::uint64_t ordinal, const Done& done) {
    if (!done.status.ok()) {
      std::cerr << "thresher: " << IdOf(ordinal).ToString() << ": " << done.status.message()
                << "\n";
      return;
    }
    if (Total() > 1) {
      std::cout << "[" << IdOf(ordinal).ToString() << ", " << FinishName(done.result.finish)
                << "]\n";
    }
    Print(streams_ && stream_ != nullptr ? stream_->Finish() : TextOf(done.result));
    std::cout << std::endl;
  }

  static void Print(const std::string& text) {
    static const bool terminal = isatty(STDOUT_FILENO) == 1;
    std::cout << (terminal ? ForTerminal(text) : text) << std::flush;
  }

  void ShowJson(std::uint64_t ordinal, const Done& done) {
    Json json = Json::object();
    const Prompt& prompt = PromptOf(ordinal);
    if (!prompt.id.empty()) json["id"] = Json::parse(prompt.id);
    json["trajectory"] = IdOf(ordinal).ToString();
    if (!done.status.ok()) {
      json["error"] = done.status.message();
    } else {
      AddResult(done.result, json);
    }
    std::cout << json.dump() << std::endl;
  }

  void AddResult(const actor::GenerationResult& result, Json& json) const {
    const auto tokens = std::span(result.tokens);
    json["prompt_token_ids"] = tokens.first(result.prompt_tokens);
    json["token_ids"] = tokens.subspan(result.prompt_tokens);
    if (policy_.tokenizer != nullptr) json["text"] = TextOf(result);
    json["logprobs"] = result.logprobs;
    if (!result.kept_mass_logprobs.empty()) json["kept_mass_logprobs"] = result.kept_mass_logprobs;
    if (options_.top_logprobs > 0) {
      Json& rows = json["top_logprobs"] = Json::array();
      for (const auto& row : result.top_logprobs) {
        Json& list = rows.emplace_back(Json::array());
        for (const auto& top : row)
          list.push_back({{"token", top.token}, {"logprob", top.logprob}});
      }
    }
    json["finish_reason"] = FinishName(result.finish);
    if (result.stop_string >= 0) {
      json["stop_string"] = options_.stop[static_cast<std::size_t>(result.stop_string)];
    }
    if (policy_.step) json["version"] = *policy_.step;
    json["kernel_set"] = model::ChosenKernelSet();
    json["weight_type"] = kernels::WeightTypeName(policy_.weights->config().dtype);
  }

  const GenerateOptions& options_;
  const LoadedPolicy& policy_;
  const std::vector<Prompt> prompts_;
  const SamplingParams sampling_;
  actor::Engine engine_;
  const bool streams_;
  std::unique_ptr<model::StreamDecoder> stream_;
  std::map<std::uint64_t, Done> done_;  // not shown yet, by ordinal
  std::uint64_t submitted_ = 0, shown_ = 0;
  bool all_ = true;
};

}  // namespace

int GenerateCommand(const GenerateOptions& options) {
  auto pool = SetUpCompute(options.compute, options.model);
  if (!pool.ok()) return Report(pool.status(), kExitUsage);
  auto policy = LoadPolicy(options.model);
  if (!policy.ok()) return Report(policy.status(), kExitUsage);
  if (!options.stop.empty() && policy->tokenizer == nullptr) {
    return Report(policy->without_tokenizer.WithContext("--stop"), kExitUsage);
  }
  auto prompts = ReadPrompts(options, *policy);
  if (!prompts.ok()) return Report(prompts.status(), kExitUsage);
  for (const std::string& key : policy->defaults.not_applied) {
    std::cerr << "thresher: generation_config.json: " << key << " is not applied\n";
  }
  auto engine = MakeEngine(options.compute, **pool, *policy, EngineOptionsOf(options));
  if (!engine.ok()) return Report(engine.status(), kExitFailure);
  Generation generation(options, *policy, std::move(prompts).value(), std::move(*engine));
  const auto all = generation.Run();
  if (!all.ok()) return Report(all.status(), kExitFailure);
  return *all ? kExitOk : kExitDoesNotHold;
}

}  // namespace thresher::launch
