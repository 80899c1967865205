#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace thresher::model {

// How the frequencies of the rotary embedding are stretched for longer contexts than the model was
// first trained on, as in `rope_scaling` (Transformers 4) or `rope_parameters` (5).
struct RopeScaling {
  enum class Kind : std::uint8_t { kDefault, kLinear, kLlama3 };
  Kind kind = Kind::kDefault;
  double factor = 1;  // linear, llama3: at least 1
  // llama3 alone. Wavelengths above original_context / low_freq_factor are stretched by `factor`,
  // those below original_context / high_freq_factor are not, those between in part.
  double low_freq_factor = 1;
  double high_freq_factor = 4;  // above low_freq_factor
  std::int32_t original_context = 8192;

  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
  Status Validate() const;  // kInvalidArgument naming the field, value and rule

  // The members of the JSON object, without rope_theta.
  nlohmann::ordered_json ToJson() const;
  // Reads the object at `key` of config.json. `theta` is replaced if it is given inside. Errors:
  // kInvalidArgument naming origin, key, value, allowed: another kind, a key that this kind does
  // not have.
  static Result<RopeScaling> FromJson(const nlohmann::ordered_json& object,
                                      const std::string& origin, const std::string& key,
                                      double& theta);
};

// Inverse frequencies [Dh/2] of the rotary embedding. A model is trained with those that
// Transformers computes in fp32, and at position 10^5 one unit in their last place is seen: the
// same roundings in the same order, only the power itself is computed in double and rounded once.
// Sources: Su et al. 2021, arXiv:2104.09864; linear: Chen et al. 2023, arXiv:2306.15595; llama3:
// the reference implementation of Llama 3.1; modeling_rope_utils.py of Transformers.
std::vector<float> InverseFrequencies(std::int32_t head_dim, double theta,
                                      const RopeScaling& scaling);

}  // namespace thresher::model
