#include "common/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/model/json_fields.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using kernels::WeightType;
using ::testing::HasSubstr;

// As Transformers 4 writes a Qwen2 model: no head_dim, rope_theta of its own, torch_dtype.
constexpr char kTransformers4[] = R"({
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
  "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
  "intermediate_size": 96, "max_position_embeddings": 512, "max_window_layers": 28,
  "model_type": "qwen2", "num_attention_heads": 8, "num_hidden_layers": 3,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
  "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "float32",
  "transformers_version": "4.50.0", "use_cache": true, "use_sliding_window": false,
  "vocab_size": 40})";

// As Transformers 5 writes a Llama model: rope_parameters, dtype, null for what is not there.
constexpr char kTransformers5[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": null, "dtype": "float32", "eos_token_id": 2, "head_dim": 16, "hidden_act": "silu",
  "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96,
  "max_position_embeddings": 512, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 8, "num_hidden_layers": 3, "num_key_value_heads": 4, "pad_token_id": 0,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
  "tie_word_embeddings": false, "transformers_version": "5.0.0", "use_cache": true,
  "vocab_size": 40})";

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

// As Transformers 4 writes Llama 3.2: scaled frequencies, several end tokens, bfloat16.
constexpr char kLlama3[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128, "eos_token_id": [129, 136, 137], "head_dim": 64, "hidden_act": "silu",
  "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96,
  "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 8, "num_hidden_layers": 3, "num_key_value_heads": 4,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 256})";

// As Transformers 5 writes Qwen3.
constexpr char kQwen3[] = R"({
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 0, "dtype": "float16", "eos_token_id": 2, "head_dim": 128, "hidden_act": "silu",
  "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96,
  "layer_types": ["full_attention", "full_attention", "full_attention"],
  "max_position_embeddings": 512, "max_window_layers": 28, "model_type": "qwen3",
  "num_attention_heads": 8, "num_hidden_layers": 3, "num_key_value_heads": 4, "pad_token_id": null,
  "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
  "sliding_window": null, "tie_word_embeddings": false, "transformers_version": "5.0.0",
  "use_cache": true, "use_sliding_window": false, "vocab_size": 40})";

TEST(ModelConfigJson, ReadsBackWhatItWrites) {
  for (const std::string family : {"llama", "llama3", "qwen2", "qwen3"}) {
    for (bool tied : {true, false}) {
      ModelConfig config = SmallConfig(family, tied);
      config.rope_theta = 123456.7;
      config.norm_eps = 3e-6;
      config.bos_id = -1;
      config.eos_ids = tied ? std::vector<std::int32_t>{4, 2} : std::vector<std::int32_t>{};
      config.dtype = tied ? WeightType::kBf16 : WeightType::kF16;
      const auto back = ModelConfig::FromJson(config.ToJson(), "config.json");
      ASSERT_TRUE(back.ok()) << back.status().ToString();
      EXPECT_EQ(back->ToJson(), config.ToJson());
      EXPECT_EQ(back->Hash(), config.Hash());
      EXPECT_EQ(back->rope_theta, config.rope_theta);
      EXPECT_EQ(back->bos_id, -1);
      EXPECT_EQ(back->rope_scaling, config.rope_scaling);
      EXPECT_EQ(back->eos_ids, config.eos_ids);
      EXPECT_EQ(back->dtype, config.dtype);
      EXPECT_EQ(back->tied_embeddings, tied);
    }
  }
}

TEST(ModelConfigJson, ReadsTheFormOfTransformers4) {
  const auto config = ModelConfig::FromJson(kTransformers4, "config.json");
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->family, "qwen2");
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->norm_eps, 1e-6);
  EXPECT_EQ(config->pad_id, -1);
  EXPECT_TRUE(config->tied_embeddings);
}

TEST(ModelConfigJson, ReadsTheFormOfTransformers5) {
  const auto config = ModelConfig::FromJson(kTransformers5, "config.json");
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->family, "llama");
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->rope_theta, 5e5);
  EXPECT_EQ(config->bos_id, -1);
  EXPECT_EQ(config->pad_id, 0);
}

TEST(ModelConfigJson, ReadsLlama3) {
  const auto config = ModelConfig::FromJson(kLlama3, "config.json");
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->rope_scaling, (RopeScaling{RopeScaling::Kind::kLlama3, 32, 1, 4, 8192}));
  EXPECT_EQ(config->rope_theta, 5e5);
  EXPECT_EQ(config->dtype, WeightType::kBf16);
  EXPECT_EQ(config->eos_ids, (std::vector<std::int32_t>{129, 136, 137}));
  EXPECT_EQ(config->eos_id(), 129);
  EXPECT_FALSE(config->qk_norm());
}

TEST(ModelConfigJson, ReadsQwen3) {
  const auto config = ModelConfig::FromJson(kQwen3, "config.json");
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->family, "qwen3");
  EXPECT_TRUE(config->qk_norm());
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_EQ(config->head_dim, 128);  // not hidden_size / num_attention_heads
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->dtype, WeightType::kF16);
  // The default of Transformers for a file without it.
  const auto implied = ModelConfig::FromJson(Replaced(kQwen3, "\"head_dim\": 128, ", ""), "c");
  EXPECT_EQ(implied->Hash(), config->Hash());
}

TEST(ModelConfigJson, ReadsLinearScalingInItsOldForm) {
  const auto config =
      ModelConfig::FromJson(Replaced(kTransformers4, "\"rope_scaling\": null",
                                     "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}"),
                            "c");
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->rope_scaling, (RopeScaling{RopeScaling::Kind::kLinear, 2}));
}

// Written by Transformers, without a part in the model's function.
TEST(ModelConfigJson, HarmlessKeysPass) {
  for (const char* pair :
       {"\"_name_or_path\": \"x\"", "\"top_k\": 50", "\"id2label\": {\"0\": \"LABEL_0\"}",
        "\"use_bfloat16\": false", "\"quantization_config\": null", "\"pruned_heads\": {}",
        "\"some_key_of_tomorrow\": null"}) {
    const auto config = ModelConfig::FromJson(
        Replaced(kTransformers5, "\"pretraining_tp\": 1", pair), "config.json");
    EXPECT_TRUE(config.ok()) << pair << ": " << config.status().ToString();
  }
}

TEST(ModelConfigJson, NamesFileKeyValueAndWhatIsAllowed) {
  struct Bad {
    const char *from, *to, *key, *value, *allowed;
  };
  const Bad cases[] = {
      {"\"hidden_size\": 64", "\"hidden_size\": -3", "hidden_size", "-3", "1 to"},
      {"\"hidden_size\": 64", "\"hidden_size\": \"x\"", "hidden_size", "\"x\"", "an integer"},
      {"\"hidden_size\": 64", "\"hidden_size\": 64.0", "hidden_size", "64.0", "an integer"},
      {"\"hidden_size\": 64,", "", "hidden_size", "missing", "1 to"},
      {"\"vocab_size\": 40", "\"vocab_size\": 99999999999999999999", "vocab_size", "1e+20", "1 to"},
      {"\"model_type\": \"llama\"", "\"model_type\": \"mistral\"", "model_type", "mistral",
       "\"llama\", \"qwen2\", \"qwen3\""},
      {"LlamaForCausalLM", "MixtralForCausalLM", "architectures", "MixtralForCausalLM",
       "LlamaForCausalLM"},
      {"\"attention_bias\": false", "\"attention_bias\": true", "attention_bias", "true", "false"},
      {"\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias", "true", "false"},
      {"\"dtype\": \"float32\"", "\"dtype\": \"float64\"", "dtype", "float64", "bfloat16"},
      {"\"dtype\": \"float32\"", "\"dtype\": \"float32\", \"torch_dtype\": \"float16\"",
       "torch_dtype", "float16", "same as dtype"},
      {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "hidden_act", "gelu", "silu"},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "rope_parameters.rope_type", "yarn",
       "\"default\", \"linear\", \"llama3\""},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"default\", \"type\": \"linear\"",
       "rope_parameters.type", "linear", "same as rope_type"},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"linear\"", "rope_parameters.factor",
       "missing", "above 0"},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"linear\", \"factor\": 0.5",
       "rope_parameters", "0.5", "1 to 1e6"},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"default\", \"factor\": 8.0",
       "rope_parameters.factor", "8.0", "no such key"},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"default\", \"mrope_section\": [1]",
       "rope_parameters.mrope_section", "[1]", "no such key"},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5",
       "rope_parameters.partial_rotary_factor", "0.5", "1.0"},
      {"\"rope_theta\": 500000.0", "\"rope_theta\": -1", "rope_parameters.rope_theta", "-1",
       "above 0"},
      {"{\"rope_theta\": 500000.0, \"rope_type\": \"default\"}", "[]", "rope_parameters", "[]",
       "an object"},
      {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0", "rms_norm_eps", "0", "above 0"},
      {"\"eos_token_id\": 2", "\"eos_token_id\": 40", "eos_token_id", "40", "39"},
      {"\"eos_token_id\": 2", "\"eos_token_id\": [2, 40]", "eos_token_id", "[2,40]", "39"},
      {"\"eos_token_id\": 2", "\"eos_token_id\": [2, \"3\"]", "eos_token_id", "[2,\"3\"]",
       "a list of integers"},
      {"\"eos_token_id\": 2", "\"eos_token_id\": [[2]]", "eos_token_id", "[[2]]", "a list"},
      {"\"use_cache\"", "\"attention_multiplier\": 0.1, \"use_cache\"", "attention_multiplier",
       "0.1", "not known"},
      {"\"use_cache\"", "\"partial_rotary_factor\": 0.5, \"use_cache\"", "partial_rotary_factor",
       "0.5", "1.0"},
      {"\"use_cache\"", "\"use_sliding_window\": true, \"use_cache\"", "use_sliding_window", "true",
       "false"},
      {"\"use_cache\"", "\"auto_map\": {\"AutoModel\": \"m.M\"}, \"use_cache\"", "auto_map", "m.M",
       "null"},
      {"\"use_cache\"",
       "\"layer_types\": [\"full_attention\", \"full_attention\", \"sliding_attention\"],"
       "\"use_cache\"",
       "layer_types", "full_attention", "each layer"},
      {"\"use_cache\"", "\"layer_types\": [\"full_attention\"], \"use_cache\"", "layer_types",
       "full_attention", "each layer"},
      {"\"use_cache\"", "\"quantization_config\": {\"bits\": 4}, \"use_cache\"",
       "quantization_config", "bits", "null"},
  };
  for (const Bad& bad : cases) {
    const auto config =
        ModelConfig::FromJson(Replaced(kTransformers5, bad.from, bad.to), "m/config.json");
    ASSERT_FALSE(config.ok()) << bad.to;
    EXPECT_EQ(config.status().code(), StatusCode::kInvalidArgument);
    const std::string& message = config.status().message();
    EXPECT_THAT(message, HasSubstr("m/config.json")) << bad.to;
    EXPECT_THAT(message, HasSubstr(std::string("'") + bad.key + "'")) << bad.to;
    EXPECT_THAT(message, HasSubstr(bad.value)) << bad.to;
    EXPECT_THAT(message, HasSubstr(bad.allowed)) << bad.to;
  }
}

TEST(ModelConfigJson, DamagedTextIsDataLoss) {
  const std::string whole = kTransformers5;
  const auto cut = ModelConfig::FromJson(whole.substr(0, whole.size() / 2), "config.json");
  EXPECT_EQ(cut.status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(cut.status().message(), HasSubstr("config.json"));
  EXPECT_EQ(ModelConfig::FromJson("[]", "config.json").status().code(),
            StatusCode::kInvalidArgument);
}

TEST(ModelConfigJson, AKeyTwiceOrHostileNestingIsDataLoss) {
  const auto twice = ModelConfig::FromJson(
      Replaced(kTransformers5, "\"use_cache\"", "\"vocab_size\": 40, \"use_cache\""), "m/c.json");
  EXPECT_EQ(twice.status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(twice.status().message(), HasSubstr("m/c.json: not JSON: key 'vocab_size'"));
  const std::string deep = "{\"a\": " + std::string(300000, '[') + std::string(300000, ']') + "}";
  EXPECT_EQ(ModelConfig::FromJson(deep, "c").status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(ParseJsonObject(deep, "c").status().code(), StatusCode::kDataLoss);
  EXPECT_TRUE(ParseJsonObject("{\"[[\\\"[[\": \"" + std::string(99, '[') + "\"}", "c").ok());
}

TEST(ModelConfigJson, TwoDifferentScalingsAreRefused) {
  const auto config = ModelConfig::FromJson(
      Replaced(kLlama3, "\"use_cache\"",
               "\"rope_parameters\": {\"rope_type\": \"default\"}, \"use_cache\""),
      "c");
  EXPECT_THAT(config.status().message(), HasSubstr("key 'rope_scaling'"));
}

TEST(ModelConfigJson, TwoDifferentThetasAreRefused) {
  const auto config = ModelConfig::FromJson(
      Replaced(kTransformers5, "\"use_cache\"", "\"rope_theta\": 10000.0, \"use_cache\""), "c");
  EXPECT_THAT(config.status().message(), HasSubstr("rope_parameters"));
}

TEST(ModelConfigValidate, NamesTheFieldThatIsWrong) {
  const auto message = [](auto change) {
    ModelConfig config = SmallConfig("llama", true);
    EXPECT_TRUE(config.Validate().ok());
    change(config);
    EXPECT_EQ(config.Validate().code(), StatusCode::kInvalidArgument);
    return config.Validate().message();
  };
  EXPECT_THAT(message([](auto& c) { c.kv_heads = 4; }), HasSubstr("kv_heads is 4"));
  EXPECT_THAT(message([](auto& c) { c.head_dim = 12; }), HasSubstr("multiple of 8"));
  EXPECT_THAT(message([](auto& c) { c.family = "gpt2"; }), HasSubstr("llama, qwen2, qwen3"));
  EXPECT_THAT(message([](auto& c) { c.qkv_bias = true; }), HasSubstr("qkv_bias is true"));
  EXPECT_THAT(message([](auto& c) { c.vocab = 0; }), HasSubstr("vocab is 0"));
  EXPECT_THAT(message([](auto& c) { c.eos_ids = {37}; }), HasSubstr("eos_id is 37"));
  EXPECT_THAT(message([](auto& c) { c.rope_theta = 0.5; }), HasSubstr("rope_theta"));
  EXPECT_THAT(message([](auto& c) { c.norm_eps = -1; }), HasSubstr("norm_eps"));
  using Kind = RopeScaling::Kind;
  EXPECT_THAT(message([](auto& c) { c.rope_scaling = {Kind::kDefault, 2}; }), HasSubstr("factor"));
  EXPECT_THAT(message([](auto& c) { c.rope_scaling = {Kind::kLinear, 0.9}; }), HasSubstr("factor"));
  EXPECT_THAT(message([](auto& c) {
                c.rope_scaling = {Kind::kLlama3, 2, 4, 4, 64};
              }),
              HasSubstr("high_freq_factor"));
  EXPECT_THAT(message([](auto& c) {
                c.rope_scaling = {Kind::kLlama3, 2, 0, 4, 64};
              }),
              HasSubstr("low_freq_factor"));
  EXPECT_THAT(message([](auto& c) {
                c.rope_scaling = {Kind::kLlama3, 2, 1, 4, 0};
              }),
              HasSubstr("original_max_position_embeddings"));
}

TEST(ModelConfigHash, ChangesWithEveryField) {
  const ModelConfig base = SmallConfig("llama", true);
  const auto changed = [&](auto change) {
    ModelConfig config = base;
    change(config);
    return config.Hash() != base.Hash();
  };
  EXPECT_TRUE(changed([](auto& c) { c.family = "qwen2"; }));
  EXPECT_TRUE(changed([](auto& c) { c.vocab++; }));
  EXPECT_TRUE(changed([](auto& c) { c.layers++; }));
  EXPECT_TRUE(changed([](auto& c) { c.width++; }));
  EXPECT_TRUE(changed([](auto& c) { c.heads++; }));
  EXPECT_TRUE(changed([](auto& c) { c.kv_heads++; }));
  EXPECT_TRUE(changed([](auto& c) { c.head_dim++; }));
  EXPECT_TRUE(changed([](auto& c) { c.ffn_width++; }));
  EXPECT_TRUE(changed([](auto& c) { c.context++; }));
  EXPECT_TRUE(changed([](auto& c) { c.tied_embeddings = false; }));
  EXPECT_TRUE(changed([](auto& c) { c.qkv_bias = true; }));
  EXPECT_TRUE(changed([](auto& c) { c.rope_theta *= 1 + 1e-15; }));
  EXPECT_TRUE(changed([](auto& c) { c.rope_scaling = {RopeScaling::Kind::kLinear, 2}; }));
  EXPECT_TRUE(changed([](auto& c) { c.dtype = WeightType::kBf16; }));
  EXPECT_TRUE(changed([](auto& c) { c.norm_eps *= 1 + 1e-15; }));
  EXPECT_TRUE(changed([](auto& c) { c.bos_id++; }));
  EXPECT_TRUE(changed([](auto& c) { c.eos_ids = {3}; }));
  EXPECT_TRUE(changed([](auto& c) { c.pad_id++; }));
}

}  // namespace
}  // namespace thresher::model
