#include "broker/metrics_line.h"

#include <nlohmann/json.hpp>

namespace thresher::broker {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kUngrouped = "run/";

void Collect(const Json& object, const std::string& prefix, Numbers& numbers) {
  for (const auto& [key, value] : object.items()) {
    if (key == "time" || key == "step") continue;
    if (value.is_object()) {
      Collect(value, (prefix == kUngrouped ? "" : prefix) + key + "/", numbers);
    } else if (value.is_number()) {
      numbers.emplace_back(prefix + key, value.get<double>());
    }
  }
}

std::optional<std::uint32_t> Whole(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<std::uint32_t>();
}

}  // namespace

std::optional<MetricsLine> ParseMetricsLine(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("time") || !json["time"].is_number()) return std::nullopt;
  MetricsLine line;
  line.time = json["time"].get<double>();
  std::optional<std::uint32_t> number = Whole(json, "step"), step = number;
  for (const char* group : {"eval", "eval_end"}) {
    const auto found = json.find(group);
    if (number || found == json.end() || !found->is_object()) continue;
    line.kind = MetricsLine::Kind::kRound;
    number = Whole(*found, "round");
    step = Whole(*found, "step");
  }
  if (!number || !step) return std::nullopt;
  line.number = *number;
  line.step = *step;
  Collect(json, kUngrouped, line.numbers);
  return line;
}

}  // namespace thresher::broker
