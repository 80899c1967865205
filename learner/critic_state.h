#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/config/config.h"
#include "common/model/weights.h"
#include "learner/adamw.h"

namespace thresher::learner {

// kOwn: a model of the policy's shape and a head; kShared: a head on the policy's hidden states.
enum class CriticKind : std::uint8_t { kOwn, kShared };
// Nothing: the objective has no critic.
std::optional<CriticKind> CriticKindOf(const ObjectiveConfig& objective);

// Flat order: the trunk's parameters as the policy's (kOwn), then the head's D weights and its
// bias, which do not decay.
std::vector<model::ParameterInfo> CriticParameters(CriticKind kind,
                                                   const model::ModelConfig& config);
std::size_t CriticParameterCount(CriticKind kind, const model::ModelConfig& config);

// What a checkpoint keeps of a critic. Empty: the phase has not begun, or has none.
struct CriticState {
  std::vector<float> weights;  // flat order; fp32
  AdamW::State optimizer;
};

}  // namespace thresher::learner
