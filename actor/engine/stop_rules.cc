#include "actor/engine/stop_rules.h"

#include <algorithm>

namespace thresher::actor {

bool StopRules::Ends(std::int32_t token) {
  const auto& stops = request_.stop_tokens;
  const bool is_stop_token = std::find(stops.begin(), stops.end(), token) != stops.end();
  const bool text_ends = !request_.stop_strings.empty() && TextEnds(token);
  return is_stop_token || text_ends;
}

bool StopRules::TextEnds(std::int32_t token) {
  tail_ += request_.decode(token);
  std::size_t first = std::string::npos, longest = 0;
  for (std::size_t i = 0; i < request_.stop_strings.size(); ++i) {
    const std::string& stop = request_.stop_strings[i];
    const std::size_t at = tail_.find(stop);
    longest = std::max(longest, stop.size());
    if (at == std::string::npos || at > first) continue;
    const bool better =
        at < first ||
        stop.size() > request_.stop_strings[static_cast<std::size_t>(stop_string_)].size();
    if (!better) continue;
    first = at;
    stop_string_ = static_cast<std::int32_t>(i);
  }
  // What is kept has been searched; a stop string that is still to come begins in it or behind it.
  if (tail_.size() >= longest) tail_.erase(0, tail_.size() - (longest - 1));
  return stop_string_ >= 0;
}

}  // namespace thresher::actor
