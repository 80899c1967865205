#pragma once

#include <string>
#include <vector>

namespace thresher::config_internal {

// One leaf of a YAML document. Only yaml_entries.cc knows the YAML library.
struct YamlEntry {
  enum class Kind { kPlain, kQuoted, kNull, kList };
  std::string path;  // keys joined by dots: "rl.group_size"
  Kind kind = Kind::kPlain;
  std::string text;  // of a scalar, unescaped; of a list of scalars, these with commas
  int line = 0;      // 1-based; 0: unknown
};

struct YamlProblem {
  int line = 0;
  std::string text;
};

// What a document says, in its order, and what is wrong with its form: syntax (with line),
// duplicate keys, keys that are not text, more than one document, nesting or size beyond any
// configuration.
struct YamlEntries {
  std::vector<YamlEntry> entries;
  std::vector<YamlProblem> problems;
};
YamlEntries ReadYamlEntries(const std::string& text);

// The value of an override (`--set path=text`): one YAML scalar; the empty text is empty text.
YamlEntries ReadYamlOverride(const std::string& path, const std::string& text);

}  // namespace thresher::config_internal
