#pragma once

// Internal to common/config: the published recipes of `objective.preset`.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thresher::config_internal {

struct PresetValue {
  std::string_view path, value;
};
struct Preset {
  std::string_view name;
  std::vector<PresetValue> values;  // of keys that nobody set
};

// "custom", which says nothing of any key, and the others in alphabetical order.
std::vector<std::string> PresetNames();
// Null: custom.
const Preset* FindPreset(std::string_view name);

}  // namespace thresher::config_internal
