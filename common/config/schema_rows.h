#pragma once

// Internal to common/config: how a row of the schema is written.

#include <string>
#include <utility>
#include <vector>

#include "common/config/schema.h"

namespace thresher::config_internal {

using Keys = std::vector<KeySpec>;

template <typename Field>
KeySpec Number(const char* path, Field field, const char* value, double min, double max,
               const char* doc) {
  KeySpec key;
  key.path = path;
  key.field = [field](Config& c) { return FieldPointer(field(c)); };
  key.default_value = value;
  key.min = min;
  key.max = max;
  key.doc = doc;
  return key;
}

template <typename Field>
KeySpec Flag(const char* path, Field field, const char* value, const char* doc) {
  return Number(path, field, value, 0, 1, doc);
}

template <typename Field>
KeySpec Choice(const char* path, Field field, std::vector<std::string> choices, const char* doc) {
  KeySpec key = Number(path, field, choices[0].c_str(), 0, 0, doc);
  key.choices = std::move(choices);
  return key;
}

template <typename Field>
KeySpec Text(const char* path, Field field, const char* value, bool (*accepts)(const std::string&),
             const char* accepted, const char* doc) {
  KeySpec key = Number(path, field, value, 0, 0, doc);
  key.accepts = accepts;
  key.accepted = accepted;
  return key;
}

// A key that came later: at its default it changes nothing, also not the identity of older runs.
inline KeySpec Later(KeySpec key) {
  key.unsaid_at_default = true;
  return key;
}

// Text with commas, or a YAML list.
inline KeySpec Listed(KeySpec key) {
  key.list = true;
  return key;
}

inline KeySpec Free(KeySpec key) {
  key.affects_results = false;
  return key;
}

// The section `objective` (schema_objective.cc).
void AddObjective(Keys& keys);

}  // namespace thresher::config_internal
