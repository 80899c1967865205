#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher::model {

// Shape of a decoder-only transformer of the Llama / Qwen2 family, as in a Hugging Face
// `config.json`.
struct ModelConfig {
  std::string family = "llama";  // llama | qwen2 (qwen2: biases on q, k, v)
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
  double norm_eps = 1e-5;
  std::int32_t bos_id = -1, eos_id = -1, pad_id = -1;

  std::int32_t q_width() const { return heads * head_dim; }
  std::int32_t kv_width() const { return kv_heads * head_dim; }
  Status Validate() const;  // kInvalidArgument naming the field, value and rule
  Hash128 Hash() const;
  // Text of `config.json` as Transformers 4 and 5 read it, dtype float32.
  std::string ToJson() const;
  // Errors: kInvalidArgument / kDataLoss naming file, key, value, allowed.
  static Result<ModelConfig> FromJson(const std::string& text, const std::string& origin);
};

}  // namespace thresher::model
