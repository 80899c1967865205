#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/model/model_config.h"

namespace thresher::model {

// What generation_config.json recommends for generating with a model. Absent: it says nothing.
struct GenerationDefaults {
  std::vector<std::int32_t> eos_ids;         // config.json's when the file has none
  std::optional<bool> do_sample;             // false: greedy
  std::optional<double> temperature;         // 0 or above
  std::optional<std::int32_t> top_k;         // 0: off
  std::optional<double> top_p;               // above 0, to 1
  std::optional<double> min_p;               // 0 to 1
  std::optional<double> repetition_penalty;  // above 0
  std::optional<std::int32_t> max_new_tokens;
  // Keys that ask Transformers for something not in this list, for a warning: with them it may
  // generate something else.
  std::vector<std::string> not_applied;

  // Errors: kInvalidArgument / kDataLoss naming origin, key, value, allowed.
  static Result<GenerationDefaults> FromJson(const std::string& text, const std::string& origin,
                                             const ModelConfig& config);
};

// Of a model folder; without generation_config.json what config.json says.
Result<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& folder,
                                                  const ModelConfig& config);

// Text of a generation_config.json with the model's special tokens and no recommendation.
std::string GenerationConfigJson(const ModelConfig& config);

}  // namespace thresher::model
