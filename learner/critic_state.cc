#include "learner/critic_state.h"

#include "common/base/check.h"

namespace thresher::learner {

std::optional<CriticKind> CriticKindOf(const ObjectiveConfig& objective) {
  if (objective.critic == "none") return std::nullopt;
  if (objective.critic == "own") return CriticKind::kOwn;
  THRESHER_CHECK(objective.critic == "shared",
                 "objective: no critic is called '" + objective.critic + "'");
  return CriticKind::kShared;
}

std::vector<model::ParameterInfo> CriticParameters(CriticKind kind,
                                                   const model::ModelConfig& config) {
  std::vector<model::ParameterInfo> list;
  if (kind == CriticKind::kOwn) list = model::ParameterList(config);
  std::size_t next = kind == CriticKind::kOwn ? model::ParameterCount(config) : 0;
  const auto width = static_cast<std::size_t>(config.width);
  list.push_back({"value_head.weight", {config.width}, next, width, false});
  list.push_back({"value_head.bias", {1}, next + width, 1, false});
  return list;
}

std::size_t CriticParameterCount(CriticKind kind, const model::ModelConfig& config) {
  const std::size_t trunk = kind == CriticKind::kOwn ? model::ParameterCount(config) : 0;
  return trunk + static_cast<std::size_t>(config.width) + 1;
}

}  // namespace thresher::learner
