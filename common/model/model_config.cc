#include "common/model/model_config.h"

#include <cmath>
#include <vector>

#include "common/base/hash.h"
#include "common/model/json_fields.h"

namespace thresher::model {
namespace {

// Far above any model of the family; low enough that every product of three fits 63 bits.
constexpr std::int32_t kMaxVocab = 1 << 22;
constexpr std::int32_t kMaxLayers = 1 << 12;
constexpr std::int32_t kMaxWidth = 1 << 18;
constexpr std::int32_t kMaxHeads = 1 << 12;
constexpr std::int32_t kMaxHeadDim = 256;      // kernels/cpu/attention.h
constexpr std::int32_t kMaxContext = 1 << 24;  // positions of common/base/random.h

Status Wrong(const std::string& field, const std::string& value, const std::string& rule) {
  return InvalidArgument("model." + field + " is " + value + "; allowed: " + rule);
}

std::string Architecture(const std::string& family) {
  return family == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM";
}

void ReadFamily(JsonFields& fields, ModelConfig& config) {
  const std::string allowed = "\"llama\", \"qwen2\"";
  config.family = fields.Text("model_type");
  if (config.family != "llama" && config.family != "qwen2") {
    fields.Fail("model_type", allowed);
    return;
  }
  const std::string architecture = Architecture(config.family);
  const Json* given = fields.Find("architectures");
  if (given != nullptr && *given != Json::array({architecture})) {
    fields.Fail("architectures",
                "[\"" + architecture + "\"] for model_type \"" + config.family + "\"");
  }
}

void ReadShape(JsonFields& fields, ModelConfig& config) {
  config.vocab = fields.Int("vocab_size", 1, kMaxVocab);
  config.layers = fields.Int("num_hidden_layers", 1, kMaxLayers);
  config.width = fields.Int("hidden_size", 1, kMaxWidth);
  config.heads = fields.Int("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = fields.Int("num_key_value_heads", 1, kMaxHeads, config.heads);
  config.head_dim =
      fields.Int("head_dim", 1, kMaxHeadDim, config.heads > 0 ? config.width / config.heads : 0);
  config.ffn_width = fields.Int("intermediate_size", 1, kMaxWidth);
  config.context = fields.Int("max_position_embeddings", 1, kMaxContext);
  config.tied_embeddings = fields.Bool("tie_word_embeddings", false);
  config.norm_eps = fields.PositiveNumber("rms_norm_eps", 1e-6);
}

// Transformers 4 keeps rope_theta beside rope_scaling, Transformers 5 both in rope_parameters.
void ReadRope(JsonFields& fields, const Json& json, const std::string& origin,
              ModelConfig& config) {
  config.rope_theta = fields.PositiveNumber("rope_theta", 10000.0);
  for (const std::string key : {"rope_parameters", "rope_scaling"}) {
    const Json* given = fields.Find(key);
    if (given == nullptr) continue;
    const std::string allowed = "null, or an object with rope_type \"default\"";
    if (!given->is_object()) return fields.Fail(key, allowed);
    JsonFields rope(*given, origin, key + ".");
    const double theta = rope.PositiveNumber("rope_theta", config.rope_theta);
    const std::string type = rope.Text("rope_type", rope.Text("type", "default"));
    if (!rope.status().ok() || type != "default") return fields.Fail(key, allowed);
    if (json.contains("rope_theta") && theta != config.rope_theta) {
      return fields.Fail(key, "the same rope_theta as beside it");
    }
    config.rope_theta = theta;
  }
}

void RequireIfGiven(JsonFields& fields, const std::string& key, const Json& wanted) {
  const Json* given = fields.Find(key);
  if (given != nullptr && *given != wanted) fields.Fail(key, wanted.dump());
}

// What this engine computes in one way only.
void ReadFixed(JsonFields& fields, ModelConfig& config) {
  config.qkv_bias = config.family == "qwen2";
  RequireIfGiven(fields, "attention_bias", config.qkv_bias);
  RequireIfGiven(fields, "mlp_bias", false);
  RequireIfGiven(fields, "hidden_act", "silu");
  RequireIfGiven(fields, "torch_dtype", "float32");
  RequireIfGiven(fields, "dtype", "float32");
  RequireIfGiven(fields, "use_sliding_window", false);
  RequireIfGiven(fields, "quantization_config", nullptr);
}

void ReadIds(JsonFields& fields, ModelConfig& config) {
  const std::int32_t last = config.vocab > 0 ? config.vocab - 1 : 0;
  config.bos_id = fields.Int("bos_token_id", -1, last, -1);
  config.eos_id = fields.Int("eos_token_id", -1, last, -1);
  config.pad_id = fields.Int("pad_token_id", -1, last, -1);
}

Json IdOrNull(std::int32_t id) { return id < 0 ? Json(nullptr) : Json(id); }

Status InRange(const std::string& field, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return Status::Ok();
  return Wrong(field, std::to_string(value), std::to_string(low) + " to " + std::to_string(high));
}

}  // namespace

Status ModelConfig::Validate() const {
  if (family != "llama" && family != "qwen2")
    return Wrong("family", "'" + family + "'", "llama, qwen2");
  THRESHER_RETURN_IF_ERROR(InRange("vocab", vocab, 1, kMaxVocab));
  THRESHER_RETURN_IF_ERROR(InRange("layers", layers, 1, kMaxLayers));
  THRESHER_RETURN_IF_ERROR(InRange("width", width, 1, kMaxWidth));
  THRESHER_RETURN_IF_ERROR(InRange("heads", heads, 1, kMaxHeads));
  THRESHER_RETURN_IF_ERROR(InRange("kv_heads", kv_heads, 1, heads));
  THRESHER_RETURN_IF_ERROR(InRange("head_dim", head_dim, 8, kMaxHeadDim));
  THRESHER_RETURN_IF_ERROR(InRange("ffn_width", ffn_width, 1, kMaxWidth));
  THRESHER_RETURN_IF_ERROR(InRange("context", context, 1, kMaxContext));
  if (heads % kv_heads != 0) {
    return Wrong("kv_heads", std::to_string(kv_heads),
                 "a divisor of heads, " + std::to_string(heads));
  }
  if (head_dim % 8 != 0) return Wrong("head_dim", std::to_string(head_dim), "a multiple of 8");
  if (qkv_bias != (family == "qwen2")) {
    return Wrong("qkv_bias", qkv_bias ? "true" : "false", "true for qwen2, false for llama");
  }
  if (!std::isfinite(rope_theta) || rope_theta <= 0) {
    return Wrong("rope_theta", std::to_string(rope_theta), "a number above 0");
  }
  if (!std::isfinite(norm_eps) || norm_eps <= 0) {
    return Wrong("norm_eps", std::to_string(norm_eps), "a number above 0");
  }
  THRESHER_RETURN_IF_ERROR(InRange("bos_id", bos_id, -1, vocab - 1));
  THRESHER_RETURN_IF_ERROR(InRange("eos_id", eos_id, -1, vocab - 1));
  return InRange("pad_id", pad_id, -1, vocab - 1);
}

Hash128 ModelConfig::Hash() const { return HashText128(ToJson()); }

std::string ModelConfig::ToJson() const {
  Json json;
  json["architectures"] = Json::array({Architecture(family)});
  json["model_type"] = family;
  json["vocab_size"] = vocab;
  json["hidden_size"] = width;
  json["intermediate_size"] = ffn_width;
  json["num_hidden_layers"] = layers;
  json["num_attention_heads"] = heads;
  json["num_key_value_heads"] = kv_heads;
  json["head_dim"] = head_dim;
  json["max_position_embeddings"] = context;
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = norm_eps;
  json["rope_theta"] = rope_theta;
  json["rope_parameters"] = {{"rope_theta", rope_theta}, {"rope_type", "default"}};
  json["tie_word_embeddings"] = tied_embeddings;
  json["attention_bias"] = qkv_bias;
  json["mlp_bias"] = false;
  json["attention_dropout"] = 0.0;
  if (family == "qwen2") json["use_sliding_window"] = false;
  json["bos_token_id"] = IdOrNull(bos_id);
  json["eos_token_id"] = IdOrNull(eos_id);
  json["pad_token_id"] = IdOrNull(pad_id);
  json["use_cache"] = true;
  json["torch_dtype"] = "float32";
  json["dtype"] = "float32";
  return json.dump(2) + "\n";
}

Result<ModelConfig> ModelConfig::FromJson(const std::string& text, const std::string& origin) {
  THRESHER_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(text, origin));
  JsonFields fields(json, origin);
  ModelConfig config;
  ReadFamily(fields, config);
  ReadShape(fields, config);
  ReadRope(fields, json, origin, config);
  ReadFixed(fields, config);
  ReadIds(fields, config);
  THRESHER_RETURN_IF_ERROR(fields.status());
  Status valid = config.Validate();
  if (!valid.ok()) return valid.WithContext(origin);
  return config;
}

}  // namespace thresher::model
