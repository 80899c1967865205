#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher::model {

using Json = nlohmann::ordered_json;

// kDataLoss if valid JSON nests deeper than 32.
Status CheckNesting(std::string_view text, const std::string& origin);

// Parses one JSON object. Errors: kDataLoss (not JSON; with the byte; nested deeper than 32; more
// than 50,000 keys), kInvalidArgument (JSON, but no object), naming `origin`.
Result<Json> ParseJsonObject(std::string_view text, const std::string& origin);
// The same, and a key twice in an object is kDataLoss too. Reads the text twice.
Result<Json> ParseStrictJsonObject(std::string_view text, const std::string& origin);

// Typed access to the fields of a parsed object. Remembers the first error and then does nothing,
// so that a reader asks for all its fields and looks at status() once. Errors are kInvalidArgument:
// "config.json: key 'hidden_size' is -3; allowed: 1 to 1048576". Borrows `object`.
class JsonFields {
 public:
  JsonFields(const Json& object, std::string origin, std::string prefix = "")
      : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

  // A field that is absent or null takes `fallback`; without one it is an error.
  std::int32_t Int(const std::string& key, std::int32_t low, std::int32_t high,
                   std::optional<std::int32_t> fallback = {});
  double PositiveNumber(const std::string& key, std::optional<double> fallback = {});
  // A token id, a list of them or nothing; each 0 to `last`. -1 counts as nothing.
  std::vector<std::int32_t> Ids(const std::string& key, std::int32_t last);
  bool Bool(const std::string& key, std::optional<bool> fallback = {});
  std::string Text(const std::string& key, std::optional<std::string> fallback = {});

  // Null when absent or null.
  const Json* Find(const std::string& key) const;
  // Records an error about `key` unless there is one already.
  void Fail(const std::string& key, const std::string& allowed);
  const Status& status() const { return status_; }

 private:
  template <typename T>
  T Missing(const std::string& key, const std::optional<T>& fallback, const std::string& allowed) {
    if (!fallback) Fail(key, allowed);
    return fallback.value_or(T{});
  }

  const Json& object_;
  std::string origin_;
  std::string prefix_;
  Status status_;
};

}  // namespace thresher::model
