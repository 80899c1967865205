#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/model/rope_scaling.h"
#include "kernels/cpu/weight_type.h"

namespace thresher::model {

// Shape of a decoder-only transformer of the Llama, Qwen2 or Qwen3 (dense) family, as in a Hugging
// Face `config.json`.
struct ModelConfig {
  std::string family = "llama";  // llama | qwen2 (biases on q, k, v) | qwen3 (norms on q and k)
  std::int32_t vocab = 0;        // rows of the embedding
  std::int32_t layers = 0;       // L
  std::int32_t width = 0;        // D
  std::int32_t heads = 0;        // H
  std::int32_t kv_heads = 0;     // K; divides H
  std::int32_t head_dim = 0;     // Dh; multiple of 8
  std::int32_t ffn_width = 0;    // F
  std::int32_t context = 0;      // max_position_embeddings
  bool tied_embeddings = true;
  bool qkv_bias = false;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  double norm_eps = 1e-5;
  // Type of the matrices, which decides what the policy is: the arithmetic is fp32 over them.
  kernels::WeightType dtype = kernels::WeightType::kF32;
  std::int32_t bos_id = -1, pad_id = -1;
  std::vector<std::int32_t> eos_ids;  // any of them ends a sequence

  std::int32_t q_width() const { return heads * head_dim; }
  std::int32_t kv_width() const { return kv_heads * head_dim; }
  bool qk_norm() const { return family == "qwen3"; }  // an RMS norm over each head of q and k
  std::int32_t eos_id() const { return eos_ids.empty() ? -1 : eos_ids.front(); }
  Status Validate() const;  // kInvalidArgument naming the field, value and rule
  Hash128 Hash() const;
  // Text of `config.json` as Transformers 4 and 5 read it.
  std::string ToJson() const;
  // Every key is read, known to make no difference here, or refused by name: what this engine does
  // not compute, and what it does not know. Errors: kInvalidArgument / kDataLoss naming file, key,
  // value, allowed.
  static Result<ModelConfig> FromJson(const std::string& text, const std::string& origin);
};

// The type called "float32", "bfloat16" or "float16" (kernels::WeightTypeName), if any.
std::optional<kernels::WeightType> ParseWeightType(std::string_view name);

// config.json of a model folder. Errors as FromJson and ReadFile.
Result<ModelConfig> LoadModelConfig(const std::filesystem::path& folder);

}  // namespace thresher::model
