#include "common/comm/rank_place.h"

#include <cstdio>
#include <nlohmann/json.hpp>

namespace thresher::comm {
namespace {

std::string Operation(const RankPlace& place) {
  if (place.sequence == 0) return "before its first operation";
  return (place.over ? "done with " : "in ") + place.what + " #" + std::to_string(place.sequence);
}

// Empty: where we are.
std::string Where(const RankPlace& mine, const RankPlace& theirs) {
  if (theirs.sequence < mine.sequence) return "is behind: " + Operation(theirs);
  if (theirs.sequence > mine.sequence) return "is ahead: " + Operation(theirs);
  if (theirs.what != mine.what) return "is " + Operation(theirs) + " instead";
  return "";
}

std::string Seconds(Duration duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", std::chrono::duration<double>(duration).count());
  return text;
}

}  // namespace

std::string EncodePlace(const RankPlace& place) {
  const nlohmann::json out = {{"job", place.job},
                              {"beat", place.beat},
                              {"sequence", place.sequence},
                              {"operation", place.what},
                              {"over", place.over}};
  return out.dump() + "\n";
}

Result<RankPlace> ParsePlace(std::string_view text) {
  const auto parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto is = [&](const char* key, auto of_type) {
    return parsed.contains(key) && (parsed[key].*of_type)();
  };
  using Json = nlohmann::json;
  if (!parsed.is_object() || !is("job", &Json::is_string) || !is("operation", &Json::is_string) ||
      !is("beat", &Json::is_number_unsigned) || !is("sequence", &Json::is_number_unsigned) ||
      !is("over", &Json::is_boolean)) {
    return DataLoss("not the place of a rank");
  }
  RankPlace place;
  place.job = parsed["job"].get<std::string>();
  place.beat = parsed["beat"].get<std::uint64_t>();
  place.sequence = parsed["sequence"].get<std::uint64_t>();
  place.what = parsed["operation"].get<std::string>();
  place.over = parsed["over"].get<bool>();
  return place;
}

std::vector<std::string> WhoIsWhere(const RankPlace& mine, std::span<const PeerPlace> peers,
                                    Duration limit) {
  std::vector<std::string> out;
  for (const PeerPlace& peer : peers) {
    const std::string where =
        peer.place ? Where(mine, *peer.place) : "has told of no operation in this job";
    const std::string silence = peer.silent < limit
                                    ? ""
                                    : "nothing heard of its process for " + Seconds(peer.silent) +
                                          ": it is stopped or dead";
    if (where.empty() && silence.empty()) continue;
    std::string line = "rank " + std::to_string(peer.rank);
    if (!where.empty()) line += " " + where + (silence.empty() ? "" : ";");
    if (!silence.empty()) line += (where.empty() ? ": " : " ") + silence;
    out.push_back(std::move(line));
  }
  return out;
}

}  // namespace thresher::comm
