#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace thresher::broker {

// What one peer counts, by the number of each name. Cumulative, of this incarnation.
using PeerCounters = std::vector<std::pair<std::uint32_t, double>>;

// The names of what peers count, each of them once: thousands of peers count the same. What peers
// make up is bounded: kMostNames in all, kMostOfPeer of a peer, of kMostNameBytes each. Plain data.
class CounterNames {
 public:
  static constexpr std::size_t kMostNames = 512;  // ours are 20
  static constexpr std::size_t kMostOfPeer = 64;
  static constexpr std::size_t kMostNameBytes = 64;

  // False: there are too many, or the name is too long; nothing is kept.
  bool Note(PeerCounters& counters, const std::string& name, double value);
  // Of numbers and values, whatever holds them.
  template <typename Counters>
  std::map<std::string, double> Named(const Counters& counters) const {
    std::map<std::string, double> named;
    for (const auto& [number, value] : counters) named.emplace(names_.at(number), value);
    return named;
  }

 private:
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::uint32_t> numbers_;
};

}  // namespace thresher::broker
