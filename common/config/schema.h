#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/config/config.h"
#include "common/config/yaml_entries.h"

namespace thresher::config_internal {

using FieldPointer = std::variant<int*, std::uint64_t*, double*, bool*, std::string*>;

// One key of the configuration: where its value lives, its type, range, default, meaning.
struct KeySpec {
  std::string path;
  std::function<FieldPointer(Config&)> field;
  std::string default_value;         // written as in a file
  double min = 0, max = 0;           // integers and numbers, both included
  std::vector<std::string> choices;  // text that is one of these; else any text that `accepts`
  bool (*accepts)(const std::string&) = nullptr;
  std::string accepted;            // says in words what `accepts` allows
  bool affects_results = true;     // part of ResultKeysText
  bool unsaid_at_default = false;  // but not while it has its default
  bool list = false;               // a YAML list of texts is as good as their text with commas
  std::string doc;
};

// All keys, section by section, in the order of the structures of config.h.
const std::vector<KeySpec>& Schema();

std::string TypeName(const KeySpec& key);
// "1 to 65536", "sync", "true, false".
std::string AllowedText(const KeySpec& key);
// The value of `key` in `config` as a file would write it; text in double quotes.
std::string ValueText(const KeySpec& key, const Config& config);
// Sets the field. Returns what is wrong ("value '-1'; allowed: 1 to 65536"), or nothing.
std::optional<std::string> SetValue(const KeySpec& key, const YamlEntry& entry, Config& config);
// Every key at its default.
Config DefaultConfig();

// The known keys nearest to an unknown path, at most three, "" when none is near.
std::string SuggestKeys(const std::string& unknown_path);
// Number of single-character insertions, deletions and replacements that turn a into b.
int EditDistance(const std::string& a, const std::string& b);

// A rule that spans several keys: the key to blame first.
struct RuleViolation {
  std::string path;
  std::string text;  // "value 7; allowed: a divisor of model.heads (6)"
};
std::vector<RuleViolation> CheckRules(const Config& config);

}  // namespace thresher::config_internal
