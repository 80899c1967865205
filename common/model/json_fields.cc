#include "common/model/json_fields.h"

#include <cmath>

namespace thresher::model {
namespace {

constexpr std::size_t kMaxShownValue = 60;

std::string Shown(const Json* value) {
  if (value == nullptr) return "missing";
  std::string text = value->dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMaxShownValue) text = text.substr(0, kMaxShownValue) + "...";
  return text;
}

}  // namespace

Result<Json> ParseJsonObject(std::string_view text, const std::string& origin) {
  try {
    Json json = Json::parse(text);
    if (json.is_object()) return json;
    return InvalidArgument(origin + ": a JSON " + json.type_name() + "; allowed: an object");
  } catch (const Json::exception& error) {
    return DataLoss(origin + ": not JSON: " + error.what());
  }
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
