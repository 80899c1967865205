// Reads config.json in the forms of Transformers 4 and 5.
#include <algorithm>
#include <array>
#include <set>

#include "common/data/files.h"
#include "common/model/config_limits.h"
#include "common/model/json_fields.h"
#include "common/model/model_config.h"

namespace thresher::model {
namespace {

// Read below, each with its check.
const std::set<std::string> kRead = {
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "model_type",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
    "tie_word_embeddings",
    "vocab_size",
};

// What changes the arithmetic and is computed in one way only, with the value that says so.
struct FixedKey {
  const char* key;
  Json value;
};
const std::array kFixed = {
    FixedKey{"hidden_act", "silu"},
    FixedKey{"mlp_bias", false},
    FixedKey{"partial_rotary_factor", 1.0},
    FixedKey{"use_sliding_window", false},
    FixedKey{"use_mrope", false},
    FixedKey{"rope_interleaved", false},
    FixedKey{"quantization_config", nullptr},
    FixedKey{"auto_map", nullptr},  // code of the folder's own
    FixedKey{"is_encoder_decoder", false},
    FixedKey{"add_cross_attention", false},
    FixedKey{"tie_encoder_decoder", false},
    FixedKey{"pruned_heads", Json::object()},
};

// What Transformers writes and what makes no difference to the model's function: training,
// housekeeping, defaults of `generate` in old files, and the window that use_sliding_window turns
// off.
const std::set<std::string> kIgnored = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attention_dropout",
    "chunk_size_feed_forward",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "output_attentions",
    "output_hidden_states",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "sliding_window",
    "task_specific_params",
    "tf_legacy_loss",
    "tokenizer_class",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    // of generate:
    "bad_words_ids",
    "begin_suppress_tokens",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
};

void ReadFamily(JsonFields& fields, ModelConfig& config) {
  config.family = fields.Text("model_type");
  if (config.family != "llama" && config.family != "qwen2" && config.family != "qwen3") {
    return fields.Fail("model_type", "\"llama\", \"qwen2\", \"qwen3\"");
  }
  const std::string architecture = Architecture(config.family);
  const Json* given = fields.Find("architectures");
  if (given != nullptr && *given != Json::array({architecture})) {
    fields.Fail("architectures",
                "[\"" + architecture + "\"] for model_type \"" + config.family + "\"");
  }
}

// The defaults are those of Transformers for a key that is absent.
void ReadShape(JsonFields& fields, const Json& json, ModelConfig& config) {
  config.vocab = fields.Int("vocab_size", 1, kMaxVocab);
  config.layers = fields.Int("num_hidden_layers", 1, kMaxLayers);
  config.width = fields.Int("hidden_size", 1, kMaxWidth);
  config.heads = fields.Int("num_attention_heads", 1, kMaxHeads);
  const bool qwen = config.family != "llama";
  config.kv_heads = fields.Int("num_key_value_heads", 1, kMaxHeads,
                               qwen && !json.contains("num_key_value_heads") ? 32 : config.heads);
  const std::int32_t split = config.heads > 0 ? config.width / config.heads : 0;
  config.head_dim = fields.Int("head_dim", 1, kMaxHeadDim, config.family == "qwen3" ? 128 : split);
  config.ffn_width = fields.Int("intermediate_size", 1, kMaxWidth);
  config.context = fields.Int("max_position_embeddings", 1, kMaxContext);
  config.tied_embeddings = fields.Bool("tie_word_embeddings", false);
  config.norm_eps = fields.PositiveNumber("rms_norm_eps", 1e-6);
}

// Transformers 4 keeps rope_theta beside rope_scaling, Transformers 5 both in rope_parameters. A
// file that holds both forms must say the same in both.
Status ReadRope(JsonFields& fields, const Json& json, const std::string& origin,
                ModelConfig& config) {
  config.rope_theta = fields.PositiveNumber("rope_theta", 10000.0);
  bool read = false;
  for (const std::string key : {"rope_parameters", "rope_scaling"}) {
    const Json* given = fields.Find(key);
    if (given == nullptr) continue;
    if (!given->is_object()) {
      fields.Fail(key, "null, or an object");
      return fields.status();
    }
    double theta = config.rope_theta;
    THRESHER_ASSIGN_OR_RETURN(const RopeScaling scaling,
                              RopeScaling::FromJson(*given, origin, key, theta));
    if ((json.contains("rope_theta") || read) && theta != config.rope_theta) {
      fields.Fail(key, "the same rope_theta as elsewhere in the file");
    }
    if (read && scaling != config.rope_scaling) fields.Fail(key, "the same as rope_parameters");
    config.rope_theta = theta;
    config.rope_scaling = scaling;
    read = true;
  }
  return fields.status();
}

void ReadLayerTypes(JsonFields& fields, const ModelConfig& config) {
  const Json* given = fields.Find("layer_types");
  const auto layers = static_cast<std::size_t>(config.layers);
  if (given != nullptr && *given != Json(std::vector<std::string>(layers, "full_attention"))) {
    fields.Fail("layer_types", "\"full_attention\" for each layer");
  }
}

void ReadWeightType(JsonFields& fields, ModelConfig& config) {
  bool read = false;
  for (const std::string key : {"dtype", "torch_dtype"}) {
    if (fields.Find(key) == nullptr) continue;
    const auto type = ParseWeightType(fields.Text(key));
    if (!type) {
      fields.Fail(key, "\"float32\", \"bfloat16\", \"float16\"");
    } else if (read && *type != config.dtype) {
      fields.Fail(key, "the same as dtype");
    } else {
      config.dtype = *type;
    }
    read = true;
  }
}

void ReadFixed(JsonFields& fields, ModelConfig& config) {
  config.qkv_bias = config.family == "qwen2";
  const Json* bias = fields.Find("attention_bias");
  if (bias != nullptr && *bias != config.qkv_bias) {
    fields.Fail("attention_bias", config.qkv_bias ? "true" : "false");
  }
  for (const FixedKey& fixed : kFixed) {
    const Json* given = fields.Find(fixed.key);
    if (given != nullptr && *given != fixed.value) fields.Fail(fixed.key, fixed.value.dump());
  }
}

void ReadIds(JsonFields& fields, ModelConfig& config) {
  const std::int32_t last = config.vocab > 0 ? config.vocab - 1 : 0;
  config.bos_id = fields.Int("bos_token_id", -1, last, -1);
  config.eos_ids = fields.Ids("eos_token_id", last);
  config.pad_id = fields.Int("pad_token_id", -1, last, -1);
}

void RefuseUnknownKeys(JsonFields& fields, const Json& json) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_null() || key == "attention_bias" || kRead.contains(key) ||
        kIgnored.contains(key)) {
      continue;
    }
    const bool fixed = std::ranges::any_of(kFixed, [&](const auto& row) { return key == row.key; });
    if (!fixed) fields.Fail(key, "nothing: this key is not known to leave the model as it is");
  }
}

}  // namespace

Result<ModelConfig> ModelConfig::FromJson(const std::string& text, const std::string& origin) {
  THRESHER_ASSIGN_OR_RETURN(const Json json, ParseStrictJsonObject(text, origin));
  JsonFields fields(json, origin);
  ModelConfig config;
  ReadFamily(fields, config);
  THRESHER_RETURN_IF_ERROR(fields.status());
  ReadShape(fields, json, config);
  THRESHER_RETURN_IF_ERROR(ReadRope(fields, json, origin, config));
  ReadLayerTypes(fields, config);
  ReadWeightType(fields, config);
  ReadFixed(fields, config);
  ReadIds(fields, config);
  RefuseUnknownKeys(fields, json);
  THRESHER_RETURN_IF_ERROR(fields.status());
  Status valid = config.Validate();
  if (!valid.ok()) return valid.WithContext(origin);
  return config;
}

Result<ModelConfig> LoadModelConfig(const std::filesystem::path& folder) {
  const auto file = folder / "config.json";
  THRESHER_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  return ModelConfig::FromJson(text, file.string());
}

}  // namespace thresher::model
