#include "broker/peer_counters.h"

#include <algorithm>

namespace thresher::broker {

bool CounterNames::Note(PeerCounters& counters, const std::string& name, double value) {
  auto known = numbers_.find(name);
  const bool is_new = known == numbers_.end();
  if (is_new && (names_.size() >= kMostNames || name.size() > kMostNameBytes)) return false;
  auto place = counters.end();
  if (!is_new) {
    place = std::ranges::find(counters, known->second, &PeerCounters::value_type::first);
  }
  if (place != counters.end()) {
    place->second = value;
    return true;
  }
  if (counters.size() >= kMostOfPeer) return false;
  if (is_new) {
    known = numbers_.emplace(name, static_cast<std::uint32_t>(names_.size())).first;
    names_.push_back(name);
  }
  counters.emplace_back(known->second, value);
  return true;
}

}  // namespace thresher::broker
