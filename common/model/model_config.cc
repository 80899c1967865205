#include "common/model/model_config.h"

#include <algorithm>
#include <cmath>

#include "common/base/hash.h"
#include "common/model/config_limits.h"
#include "common/model/json_fields.h"

namespace thresher::model {
namespace {

using kernels::WeightType;

Status Wrong(const std::string& field, const std::string& value, const std::string& rule) {
  return InvalidArgument("model." + field + " is " + value + "; allowed: " + rule);
}

Status InRange(const std::string& field, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return Status::Ok();
  return Wrong(field, std::to_string(value), std::to_string(low) + " to " + std::to_string(high));
}

Status PositiveNumber(const std::string& field, double value) {
  if (std::isfinite(value) && value > 0) return Status::Ok();
  return Wrong(field, std::to_string(value), "a number above 0");
}

Status CheckSizes(const ModelConfig& c) {
  THRESHER_RETURN_IF_ERROR(InRange("vocab", c.vocab, 1, kMaxVocab));
  THRESHER_RETURN_IF_ERROR(InRange("layers", c.layers, 1, kMaxLayers));
  THRESHER_RETURN_IF_ERROR(InRange("width", c.width, 1, kMaxWidth));
  THRESHER_RETURN_IF_ERROR(InRange("heads", c.heads, 1, kMaxHeads));
  THRESHER_RETURN_IF_ERROR(InRange("kv_heads", c.kv_heads, 1, c.heads));
  THRESHER_RETURN_IF_ERROR(InRange("head_dim", c.head_dim, 8, kMaxHeadDim));
  THRESHER_RETURN_IF_ERROR(InRange("ffn_width", c.ffn_width, 1, kMaxWidth));
  THRESHER_RETURN_IF_ERROR(InRange("context", c.context, 1, kMaxContext));
  if (c.heads % c.kv_heads != 0) {
    return Wrong("kv_heads", std::to_string(c.kv_heads),
                 "a divisor of heads, " + std::to_string(c.heads));
  }
  if (c.head_dim % 8 == 0) return Status::Ok();
  return Wrong("head_dim", std::to_string(c.head_dim), "a multiple of 8");
}

Json IdOrNull(std::int32_t id) { return id < 0 ? Json(nullptr) : Json(id); }

Json IdsOrNull(const std::vector<std::int32_t>& ids) {
  return ids.size() > 1 ? Json(ids) : IdOrNull(ids.empty() ? -1 : ids.front());
}

// Transformers 4 reads rope_theta and rope_scaling; Transformers 5 rope_parameters.
void WriteRope(const ModelConfig& config, Json& json) {
  json["rope_theta"] = config.rope_theta;
  const Json scaling = config.rope_scaling.ToJson();
  if (config.rope_scaling.kind != RopeScaling::Kind::kDefault) json["rope_scaling"] = scaling;
  json["rope_parameters"] = {{"rope_theta", config.rope_theta}};
  json["rope_parameters"].update(scaling);
}

}  // namespace

std::optional<WeightType> ParseWeightType(std::string_view name) {
  for (WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kF16}) {
    if (name == kernels::WeightTypeName(type)) return type;
  }
  return std::nullopt;
}

Status ModelConfig::Validate() const {
  if (family != "llama" && family != "qwen2" && family != "qwen3") {
    return Wrong("family", "'" + family + "'", "llama, qwen2, qwen3");
  }
  THRESHER_RETURN_IF_ERROR(CheckSizes(*this));
  if (qkv_bias != (family == "qwen2")) {
    return Wrong("qkv_bias", qkv_bias ? "true" : "false", "true for qwen2, false for the others");
  }
  if (!(rope_theta >= 1 && rope_theta <= kMaxRopeTheta)) {
    return Wrong("rope_theta", std::to_string(rope_theta), "1 to 1e12");
  }
  THRESHER_RETURN_IF_ERROR(rope_scaling.Validate());
  THRESHER_RETURN_IF_ERROR(PositiveNumber("norm_eps", norm_eps));
  THRESHER_RETURN_IF_ERROR(InRange("bos_id", bos_id, -1, vocab - 1));
  for (std::int32_t id : eos_ids) {
    THRESHER_RETURN_IF_ERROR(InRange("eos_id", id, 0, vocab - 1));
  }
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
  WriteRope(*this, json);
  json["tie_word_embeddings"] = tied_embeddings;
  json["attention_bias"] = qkv_bias;
  json["mlp_bias"] = false;
  json["attention_dropout"] = 0.0;
  if (family != "llama") json["use_sliding_window"] = false;
  json["bos_token_id"] = IdOrNull(bos_id);
  json["eos_token_id"] = IdsOrNull(eos_ids);
  json["pad_token_id"] = IdOrNull(pad_id);
  json["use_cache"] = true;
  json["torch_dtype"] = kernels::WeightTypeName(dtype);
  json["dtype"] = kernels::WeightTypeName(dtype);
  return json.dump(2) + "\n";
}

}  // namespace thresher::model
