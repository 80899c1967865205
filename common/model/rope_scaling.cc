#include "common/model/rope_scaling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "common/model/json_fields.h"

namespace thresher::model {
namespace {

using Kind = RopeScaling::Kind;

constexpr std::int32_t kMaxOriginalContext = 1 << 24;
constexpr double kMaxFactor = 1e6;

struct KindRow {
  Kind kind;
  const char* name;
  std::vector<std::string> keys;  // beside rope_type, type and rope_theta
};

const std::array<KindRow, 3>& Kinds() {
  static const std::array<KindRow, 3> kinds = {{
      {Kind::kDefault, "default", {}},
      {Kind::kLinear, "linear", {"factor"}},
      {Kind::kLlama3,
       "llama3",
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}},
  }};
  return kinds;
}

const KindRow& Row(Kind kind) { return Kinds()[static_cast<std::size_t>(kind)]; }

Status OutOfRange(const std::string& field, double value, const std::string& rule) {
  return InvalidArgument("model.rope_scaling." + field + " is " + Json(value).dump() +
                         "; allowed: " + rule);
}

// Which kind the object names; Transformers 4 once called the key "type" and still writes both.
Kind ReadKind(JsonFields& rope) {
  const std::string allowed = "\"default\", \"linear\", \"llama3\"";
  const std::string key = rope.Find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string name = rope.Text(key, "default");
  if (rope.Text("type", name) != name) rope.Fail("type", "the same as rope_type");
  for (const KindRow& row : Kinds()) {
    if (name == row.name) return row.kind;
  }
  rope.Fail(key, allowed);
  return Kind::kDefault;
}

void RefuseOtherKeys(JsonFields& rope, const Json& object, const KindRow& row) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_null() || key == "rope_type" || key == "type" || key == "rope_theta") continue;
    if (key == "partial_rotary_factor") {
      if (value != 1.0) rope.Fail(key, "1.0");
    } else if (std::ranges::find(row.keys, key) == row.keys.end()) {
      rope.Fail(key, std::string("no such key with rope_type \"") + row.name + "\"");
    }
  }
}

// Every operation in fp32 and in the order of Transformers, so that the result has its bits.
float Llama3Frequency(float frequency, const RopeScaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const double context = scaling.original_context;
  const float wavelength = 1.0f / frequency * static_cast<float>(2 * std::numbers::pi);
  if (wavelength > static_cast<float>(context / scaling.low_freq_factor)) return frequency / factor;
  if (wavelength < static_cast<float>(context / scaling.high_freq_factor)) return frequency;
  const float turns = 1.0f / wavelength * static_cast<float>(context);  // over the old context
  const float kept = (turns - static_cast<float>(scaling.low_freq_factor)) /
                     static_cast<float>(scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0f - kept) * frequency / factor + kept * frequency;
}

}  // namespace

Status RopeScaling::Validate() const {
  if (kind == Kind::kDefault) {
    return *this == RopeScaling{} ? Status::Ok()
                                  : OutOfRange("factor", factor, "nothing without a kind");
  }
  if (!(factor >= 1 && factor <= kMaxFactor)) return OutOfRange("factor", factor, "1 to 1e6");
  if (kind == Kind::kLinear) return Status::Ok();
  if (!(low_freq_factor > 0 && low_freq_factor <= kMaxFactor)) {
    return OutOfRange("low_freq_factor", low_freq_factor, "above 0, to 1e6");
  }
  if (!(high_freq_factor > low_freq_factor && high_freq_factor <= kMaxFactor)) {
    return OutOfRange("high_freq_factor", high_freq_factor, "above low_freq_factor, to 1e6");
  }
  if (original_context < 1 || original_context > kMaxOriginalContext) {
    return OutOfRange("original_max_position_embeddings", original_context,
                      "1 to " + std::to_string(kMaxOriginalContext));
  }
  return Status::Ok();
}

Json RopeScaling::ToJson() const {
  Json json;
  json["rope_type"] = Row(kind).name;
  if (kind != Kind::kDefault) json["factor"] = factor;
  if (kind == Kind::kLlama3) {
    json["low_freq_factor"] = low_freq_factor;
    json["high_freq_factor"] = high_freq_factor;
    json["original_max_position_embeddings"] = original_context;
  }
  return json;
}

Result<RopeScaling> RopeScaling::FromJson(const Json& object, const std::string& origin,
                                          const std::string& key, double& theta) {
  JsonFields rope(object, origin, key + ".");
  theta = rope.PositiveNumber("rope_theta", theta);
  RopeScaling scaling;
  scaling.kind = ReadKind(rope);
  RefuseOtherKeys(rope, object, Row(scaling.kind));
  if (scaling.kind != Kind::kDefault) scaling.factor = rope.PositiveNumber("factor");
  if (scaling.kind == Kind::kLlama3) {
    scaling.low_freq_factor = rope.PositiveNumber("low_freq_factor");
    scaling.high_freq_factor = rope.PositiveNumber("high_freq_factor");
    scaling.original_context = rope.Int("original_max_position_embeddings", 1, kMaxOriginalContext);
  }
  THRESHER_RETURN_IF_ERROR(rope.status());
  Status valid = scaling.Validate();
  if (!valid.ok()) return valid.WithContext(origin + ": key '" + key + "'");
  return scaling;
}

std::vector<float> InverseFrequencies(std::int32_t head_dim, double theta,
                                      const RopeScaling& scaling) {
  std::vector<float> frequencies;
  for (std::int32_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float frequency = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    if (scaling.kind == Kind::kLinear) frequency /= static_cast<float>(scaling.factor);
    if (scaling.kind == Kind::kLlama3) frequency = Llama3Frequency(frequency, scaling);
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace thresher::model
