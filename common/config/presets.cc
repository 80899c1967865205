#include "common/config/presets.h"

#include <algorithm>

namespace thresher::config_internal {
namespace {

// docs/objectives.md has the papers and what a paper leaves open.
const std::vector<Preset>& Presets() {
  static const std::vector<Preset> presets = {
      {"cispo",
       {{"objective.advantage", "group"},
        {"objective.ratio", "token"},
        {"objective.surrogate", "cispo"},
        {"objective.clip_low", "1"},
        {"objective.clip_high", "4"},
        {"objective.aggregate", "token_mean"},
        {"objective.kl", "0"}}},
      {"dapo",
       {{"objective.advantage", "group"},
        {"objective.ratio", "token"},
        {"objective.surrogate", "clip"},
        {"objective.clip_low", "0.2"},
        {"objective.clip_high", "0.28"},
        {"objective.aggregate", "token_mean"},
        {"objective.kl", "0"},
        {"objective.overlong_share", "0.2"},
        {"objective.overlong_penalty", "1"},
        {"rl.dynamic_sampling", "true"}}},
      {"dr_grpo",
       {{"objective.advantage", "group_mean"},
        {"objective.ratio", "token"},
        {"objective.surrogate", "clip"},
        {"objective.clip_low", "0.2"},
        {"objective.clip_high", "0.2"},
        {"objective.aggregate", "constant"},
        {"objective.kl", "0"}}},
      {"grpo",
       {{"objective.advantage", "group"},
        {"objective.ratio", "token"},
        {"objective.surrogate", "clip"},
        {"objective.clip_low", "0.2"},
        {"objective.clip_high", "0.2"},
        {"objective.aggregate", "sequence_mean"},
        {"objective.kl", "0.04"},
        {"objective.kl_estimator", "k3"}}},
      {"gspo",
       {{"objective.advantage", "group"},
        {"objective.ratio", "sequence"},
        {"objective.surrogate", "clip"},
        {"objective.clip_low", "0.0003"},
        {"objective.clip_high", "0.0004"},
        {"objective.aggregate", "sequence_mean"},
        {"objective.kl", "0"}}},
      {"ppo",
       {{"objective.advantage", "gae"},
        {"objective.critic", "own"},
        {"objective.gamma", "1"},
        {"objective.gae_lambda", "0.95"},
        {"objective.value_clip", "0.2"},
        {"objective.ratio", "token"},
        {"objective.surrogate", "clip"},
        {"objective.clip_low", "0.2"},
        {"objective.clip_high", "0.2"},
        {"objective.aggregate", "token_mean"},
        {"objective.kl", "0"},
        {"rl.drop_zero_variance", "false"}}},
      {"raft",
       {{"objective.advantage", "accepted"},
        {"objective.ratio", "none"},
        {"objective.surrogate", "plain"},
        {"objective.aggregate", "token_mean"},
        {"objective.kl", "0"},
        {"rl.drop_zero_variance", "false"}}},
      {"reinforce_pp",
       {{"objective.advantage", "batch"},
        {"objective.ratio", "token"},
        {"objective.surrogate", "clip"},
        {"objective.clip_low", "0.2"},
        {"objective.clip_high", "0.2"},
        {"objective.aggregate", "token_mean"},
        {"objective.kl", "0"},
        {"objective.kl_in", "reward"},
        {"objective.kl_estimator", "k1"},
        {"rl.drop_zero_variance", "false"}}},
      {"rloo",
       {{"objective.advantage", "leave_one_out"},
        {"objective.ratio", "none"},
        {"objective.surrogate", "plain"},
        {"objective.aggregate", "constant"},
        {"objective.kl", "0"},
        {"objective.kl_in", "reward"},
        {"objective.kl_estimator", "k1"}}},
      {"vtrace_impala",
       {{"objective.advantage", "vtrace"},
        {"objective.critic", "shared"},
        {"objective.value_coefficient", "0.5"},
        {"objective.value_clip", "0"},
        {"objective.gamma", "1"},
        {"objective.rho_bar", "1"},
        {"objective.c_bar", "1"},
        {"objective.ratio", "none"},
        {"objective.surrogate", "plain"},
        {"objective.aggregate", "token_mean"},
        {"objective.kl", "0"},
        {"rl.drop_zero_variance", "false"}}},
  };
  return presets;
}

}  // namespace

std::vector<std::string> PresetNames() {
  std::vector<std::string> names = {"custom"};
  for (const Preset& preset : Presets()) names.emplace_back(preset.name);
  return names;
}

const Preset* FindPreset(std::string_view name) {
  const auto found = std::ranges::find(Presets(), name, &Preset::name);
  return found == Presets().end() ? nullptr : &*found;
}

}  // namespace thresher::config_internal
