#pragma once

// Internal to common/wire: codecs of the structures in types.capnp. Write fills a builder; Read
// takes a reader and throws Malformed or kj::Exception (caught by ReadCapnp) for what no writer
// produces. Every pointer field is read once: reads count against the traversal limit.

#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/data/run_identity.h"
#include "common/data/trajectory.h"
#include "common/wire/capnp_adapter.h"
#include "common/wire/types.capnp.h"

namespace thresher::wire {

using MetricList = std::vector<std::pair<std::string, double>>;

void Write(const Hash128& value, schema::Hash128::Builder out);
void Write(const PolicyVersion& value, schema::PolicyVersion::Builder out);
void Write(const TrajectoryId& value, schema::TrajectoryId::Builder out);
void Write(const RunIdentity& value, schema::RunIdentity::Builder out);
void Write(const std::pair<std::string, double>& value, schema::Metric::Builder out);

Hash128 Read(schema::Hash128::Reader in);
PolicyVersion Read(schema::PolicyVersion::Reader in);
TrajectoryId Read(schema::TrajectoryId::Reader in);  // in range
RunIdentity Read(schema::RunIdentity::Reader in);
std::pair<std::string, double> Read(schema::Metric::Reader in);

// Text may hold any bytes, zeros included.
inline capnp::Text::Reader ToText(const std::string& text) { return {text.c_str(), text.size()}; }
inline std::string ToString(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

// An enumeration whose values are 0 .. `last` on both sides.
template <typename Schema, typename T>
Schema ToSchema(T value) {
  return static_cast<Schema>(static_cast<std::uint16_t>(value));
}
template <typename T, typename Schema>
T ReadEnum(Schema value, T last, const char* field) {
  auto number = static_cast<std::uint16_t>(value);
  Require(number <= static_cast<std::uint16_t>(last), [&] {
    return std::string(field) + " is " + std::to_string(number) + "; allowed: 0 to " +
           std::to_string(static_cast<std::uint16_t>(last));
  });
  return static_cast<T>(number);
}

// Lists of structures; `write(value, builder)` and `read(reader)` are the element's codec.
template <typename T, typename ListBuilder, typename WriteElement>
void WriteList(const std::vector<T>& values, ListBuilder out, WriteElement write) {
  for (std::size_t i = 0; i < values.size(); ++i) write(values[i], out[static_cast<unsigned>(i)]);
}
template <typename ListReader, typename ReadElement>
auto ReadList(ListReader in, ReadElement read) {
  std::vector<decltype(read(in[0]))> values;
  values.reserve(in.size());
  for (auto element : in) values.push_back(read(element));
  return values;
}
// The codecs declared above, for lists of shared structures.
inline constexpr auto kWriteShared = [](const auto& value, auto out) { Write(value, out); };
inline constexpr auto kReadShared = [](auto in) { return Read(in); };

}  // namespace thresher::wire
