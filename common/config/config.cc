#include "common/config/config.h"

#include <map>

#include "common/config/presets.h"
#include "common/config/schema.h"
#include "common/data/files.h"

namespace thresher {
namespace {

using config_internal::KeySpec;
using config_internal::Schema;
using config_internal::YamlEntries;
using config_internal::YamlEntry;

// Collects what is wrong, so that one run of the program shows all of it.
class Parser {
 public:
  explicit Parser(std::string origin) : origin_(std::move(origin)) {}

  void ApplyFile(const std::string& yaml) {
    Apply(config_internal::ReadYamlEntries(yaml), origin_);
  }

  void ApplyOverride(const std::string& text) {
    std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Fail("--set", 0, "'" + text + "'; allowed: KEY=VALUE, such as rl.groups=16");
    }
    Apply(config_internal::ReadYamlOverride(text.substr(0, equals), text.substr(equals + 1)),
          "--set");
  }

  // The rules are checked only when every value could be read: else they blame the wrong key.
  Config Finish() {
    ApplyPreset();
    if (errors_.empty()) {
      for (const auto& violation : config_internal::CheckRules(config_)) {
        auto place = places_.find(violation.path);
        std::string where = place == places_.end() ? origin_ : place->second.first;
        int line = place == places_.end() ? 0 : place->second.second;
        Fail(where, line, violation.path + ": " + violation.text);
      }
    }
    if (!errors_.empty()) throw ConfigError(errors_);
    return config_;
  }

 private:
  void Fail(const std::string& where, int line, const std::string& text) {
    if (!errors_.empty()) errors_ += '\n';
    errors_ += where + (line > 0 ? ":" + std::to_string(line) : "") + ": " + text;
  }

  // Below what was set: a preset only moves defaults.
  void ApplyPreset() {
    const auto* preset = config_internal::FindPreset(config_.objective.preset);
    if (preset == nullptr) return;
    for (const auto& [path, value] : preset->values) {
      if (places_.contains(std::string(path))) continue;
      Apply(config_internal::ReadYamlOverride(std::string(path), std::string(value)),
            "objective.preset: " + std::string(preset->name));
    }
  }

  void Apply(const YamlEntries& yaml, const std::string& where) {
    for (const auto& problem : yaml.problems) Fail(where, problem.line, problem.text);
    for (const YamlEntry& entry : yaml.entries) ApplyEntry(entry, where);
  }

  void ApplyEntry(const YamlEntry& entry, const std::string& where) {
    bool section = false;
    for (const KeySpec& key : Schema()) {
      section = section || key.path.starts_with(entry.path + ".");
      if (key.path != entry.path) continue;
      if (auto problem = config_internal::SetValue(key, entry, config_)) {
        return Fail(where, entry.line, entry.path + ": " + *problem);
      }
      places_[entry.path] = {where, entry.line};
      return;
    }
    if (section && entry.kind == YamlEntry::Kind::kNull) return;  // a section left empty
    if (section)
      return Fail(where, entry.line, entry.path + ": a value; allowed: the keys of this section");
    std::string near = config_internal::SuggestKeys(entry.path);
    Fail(where, entry.line,
         entry.path + ": unknown key" +
             (near.empty() ? "; `thresher check` lists all" : "; did you mean " + near + "?"));
  }

  std::string origin_;
  std::string errors_;
  std::map<std::string, std::pair<std::string, int>> places_;  // key: where it was set last
  Config config_ = config_internal::DefaultConfig();
};

std::string SectionOf(const std::string& path) { return path.substr(0, path.find('.')); }
std::string NameOf(const std::string& path) { return path.substr(path.find('.') + 1); }

}  // namespace

std::vector<KeyDoc> DocumentedKeys() {
  std::vector<KeyDoc> docs;
  for (const KeySpec& key : Schema()) {
    docs.push_back({key.path, TypeName(key), AllowedText(key), key.default_value, key.doc});
  }
  return docs;
}

Config ParseConfig(const std::string& yaml, const std::string& origin,
                   const std::vector<std::string>& overrides) {
  Parser parser(origin);
  parser.ApplyFile(yaml);
  for (const std::string& text : overrides) parser.ApplyOverride(text);
  return parser.Finish();
}

Config LoadConfig(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  const Result<FileInfo> info = Files().Stat(file, /*follow_links=*/true);
  if (!info.ok() || info->kind != FileInfo::Kind::kFile) {
    throw ConfigError(file.string() +
                      ": no such file; allowed: the path of a configuration, such as "
                      "configs/quickstart.yaml");
  }
  const Result<std::string> text = ReadFile(file);
  if (!text.ok()) throw ConfigError(file.string() + ": cannot be read");
  return ParseConfig(*text, file.string(), overrides);
}

std::string ResolvedYaml(const Config& config) {
  std::string out = "# Every key of the run with its value.\n";
  std::string section;
  for (const KeySpec& key : Schema()) {
    bool nested = key.path.find('.') != std::string::npos;
    if (nested && SectionOf(key.path) != section) {
      section = SectionOf(key.path);
      out += "\n" + section + ":\n";
    } else if (!nested) {
      out += "\n";
    }
    std::string indent = nested ? "  " : "";
    out += indent + "# " + key.doc + " (" + TypeName(key) + ": " + AllowedText(key) + ")\n";
    out += indent + NameOf(key.path) + ": " + ValueText(key, config) + "\n";
  }
  return out;
}

std::string ResultKeysText(const Config& config) {
  const Config defaults = config_internal::DefaultConfig();
  std::string out;
  for (const KeySpec& key : Schema()) {
    if (!key.affects_results) continue;
    const std::string value = ValueText(key, config);
    if (key.unsaid_at_default && value == ValueText(key, defaults)) continue;
    out += key.path + ": " + value + "\n";
  }
  return out;
}

}  // namespace thresher
