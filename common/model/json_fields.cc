#include "common/model/json_fields.h"

#include <cmath>

#include "common/data/json.h"

namespace thresher::model {
namespace {

constexpr std::size_t kMaxShownValue = 60;

std::string Shown(const Json* value) {
  if (value == nullptr) return "missing";
  std::string text = value->dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMaxShownValue) text = text.substr(0, kMaxShownValue) + "...";
  return text;
}

// Deeper than any file of a model folder nests. What is deeper could exhaust the stack of whoever
// walks it.
constexpr int kMaxDepth = 32;
// Json keeps an object's keys in a list, so that an object costs the square of their number.
constexpr int kMostMembers = 50000;

// What valid JSON has: the greatest depth, and members of all its objects.
struct Extent {
  int depth = 0, members = 0;
};
Extent ExtentOf(std::string_view text) {
  Extent extent;
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') in_string = !in_string;
    if (in_string) {
      i += c == '\\';
    } else if (c == '{' || c == '[') {
      extent.depth = std::max(extent.depth, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ':') {
      ++extent.members;
    }
  }
  return extent;
}

}  // namespace

Status CheckNesting(std::string_view text, const std::string& origin) {
  if (ExtentOf(text).depth <= kMaxDepth) return Status::Ok();
  return DataLoss(origin + ": nests deeper than " + std::to_string(kMaxDepth));
}

Result<Json> ParseJsonObject(std::string_view text, const std::string& origin) {
  THRESHER_RETURN_IF_ERROR(CheckNesting(text, origin));
  if (const int members = ExtentOf(text).members; members > kMostMembers) {
    return DataLoss(origin + ": has " + std::to_string(members) + " keys; allowed: up to " +
                    std::to_string(kMostMembers));
  }
  try {
    Json json = Json::parse(text);
    if (json.is_object()) return json;
    return InvalidArgument(origin + ": a JSON " + json.type_name() + "; allowed: an object");
  } catch (const Json::exception& error) {
    return DataLoss(origin + ": not JSON: " + error.what());
  }
}

Result<Json> ParseStrictJsonObject(std::string_view text, const std::string& origin) {
  const auto strict = ParseJson(text);
  if (!strict.ok()) return DataLoss(origin + ": not JSON: " + strict.status().message());
  return ParseJsonObject(text, origin);
}

const Json* JsonFields::Find(const std::string& key) const {
  auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::Fail(const std::string& key, const std::string& allowed) {
  if (!status_.ok()) return;
  status_ = InvalidArgument(origin_ + ": key '" + prefix_ + key + "' is " + Shown(Find(key)) +
                            "; allowed: " + allowed);
}

std::int32_t JsonFields::Int(const std::string& key, std::int32_t low, std::int32_t high,
                             std::optional<std::int32_t> fallback) {
  const std::string allowed = std::to_string(low) + " to " + std::to_string(high);
  const Json* value = Find(key);
  if (value == nullptr) return Missing(key, fallback, allowed);
  const bool fits = value->is_number_unsigned()
                        ? value->get<std::uint64_t>() <= static_cast<std::uint64_t>(high)
                        : value->is_number_integer();
  if (!fits || value->get<std::int64_t>() < low || value->get<std::int64_t>() > high) {
    Fail(key, "an integer, " + allowed);
    return low;
  }
  return value->get<std::int32_t>();
}

std::vector<std::int32_t> JsonFields::Ids(const std::string& key, std::int32_t last) {
  const Json* value = Find(key);
  if (value == nullptr || *value == -1) return {};
  const Json list = value->is_array() ? *value : Json::array({*value});
  std::vector<std::int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > last) {
      Fail(key, "an integer or a list of integers, 0 to " + std::to_string(last));
      return {};
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

double JsonFields::PositiveNumber(const std::string& key, std::optional<double> fallback) {
  const std::string allowed = "a number above 0";
  const Json* value = Find(key);
  if (value == nullptr) return Missing(key, fallback, allowed);
  if (!value->is_number() || !std::isfinite(value->get<double>()) || value->get<double>() <= 0) {
    Fail(key, allowed);
    return 1;
  }
  return value->get<double>();
}

bool JsonFields::Bool(const std::string& key, std::optional<bool> fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return Missing(key, fallback, "true, false");
  if (!value->is_boolean()) Fail(key, "true, false");
  return value->is_boolean() && value->get<bool>();
}

std::string JsonFields::Text(const std::string& key, std::optional<std::string> fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return Missing(key, fallback, "a string");
  if (!value->is_string()) Fail(key, "a string");
  return value->is_string() ? value->get<std::string>() : std::string();
}

}  // namespace thresher::model
