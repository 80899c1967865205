#include "common/model/generation_config.h"

#include <set>

#include "common/data/files.h"
#include "common/model/json_fields.h"

namespace thresher::model {
namespace {

constexpr std::int32_t kMaxTokens = 1 << 24;

const std::set<std::string> kRead = {
    "bos_token_id", "do_sample",   "eos_token_id", "max_new_tokens", "min_p",
    "pad_token_id", "temperature", "top_k",        "top_p",          "repetition_penalty",
};

// Neither what is generated nor how long it gets.
const std::set<std::string> kHarmless = {
    "_from_model_config", "cache_implementation",    "max_length",
    "output_attentions",  "output_hidden_states",    "output_logits",
    "output_scores",      "return_dict_in_generate", "transformers_version",
    "use_cache",          "decoder_start_token_id",
};

// Values with which a key asks for nothing.
bool IsNeutral(const Json& value) {
  return value.is_null() || value == false || value == 0 || value == 1 ||
         (value.is_structured() && value.empty());
}

}  // namespace

Result<GenerationDefaults> GenerationDefaults::FromJson(const std::string& text,
                                                        const std::string& origin,
                                                        const ModelConfig& config) {
  THRESHER_ASSIGN_OR_RETURN(const Json json, ParseStrictJsonObject(text, origin));
  JsonFields fields(json, origin);
  const auto number = [&](const std::string& key, double low, double high,
                          const std::string& allowed) -> std::optional<double> {
    const Json* given = fields.Find(key);
    if (given == nullptr) return std::nullopt;
    if (given->is_number() && given->get<double>() >= low && given->get<double>() <= high) {
      return given->get<double>();
    }
    fields.Fail(key, allowed);
    return std::nullopt;
  };
  constexpr double kTiny = 1e-9, kHuge = 1e9;
  GenerationDefaults defaults;
  defaults.eos_ids = fields.Ids("eos_token_id", config.vocab - 1);
  if (defaults.eos_ids.empty()) defaults.eos_ids = config.eos_ids;
  if (fields.Find("do_sample") != nullptr) defaults.do_sample = fields.Bool("do_sample");
  defaults.temperature = number("temperature", 0, kHuge, "a number, 0 or above");
  if (fields.Find("top_k") != nullptr) defaults.top_k = fields.Int("top_k", 0, kMaxTokens);
  defaults.top_p = number("top_p", kTiny, 1, "a number above 0, to 1");
  defaults.min_p = number("min_p", 0, 1, "a number, 0 to 1");
  defaults.repetition_penalty = number("repetition_penalty", kTiny, kHuge, "a number above 0");
  if (fields.Find("max_new_tokens") != nullptr) {
    defaults.max_new_tokens = fields.Int("max_new_tokens", 1, kMaxTokens);
  }
  THRESHER_RETURN_IF_ERROR(fields.status());
  for (const auto& [key, value] : json.items()) {
    if (!kRead.contains(key) && !kHarmless.contains(key) && !IsNeutral(value)) {
      defaults.not_applied.push_back(key);
    }
  }
  return defaults;
}

Result<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& folder,
                                                  const ModelConfig& config) {
  const auto file = folder / "generation_config.json";
  const auto text = ReadFile(file);
  if (text.ok()) return GenerationDefaults::FromJson(*text, file.string(), config);
  if (text.status().code() != StatusCode::kNotFound) return text.status();
  GenerationDefaults defaults;
  defaults.eos_ids = config.eos_ids;
  return defaults;
}

std::string GenerationConfigJson(const ModelConfig& config) {
  Json json = Json::object();
  if (config.bos_id >= 0) json["bos_token_id"] = config.bos_id;
  if (config.eos_ids.size() == 1) json["eos_token_id"] = config.eos_id();
  if (config.eos_ids.size() > 1) json["eos_token_id"] = config.eos_ids;
  if (config.pad_id >= 0) json["pad_token_id"] = config.pad_id;
  return json.dump(2) + "\n";
}

}  // namespace thresher::model
