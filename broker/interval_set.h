#pragma once

#include <cstdint>
#include <map>

namespace thresher::broker {

// A set of whole numbers, kept as the ranges it consists of: what is added in about the order of
// the numbers costs a few ranges, however many they are. Plain data.
class IntervalSet {
 public:
  // Adds [begin, end); what is there already stays.
  void Insert(std::uint64_t begin, std::uint64_t end);
  bool Contains(std::uint64_t number) const;
  // Ranges, end by begin: ascending, neither touching nor overlapping.
  const std::map<std::uint64_t, std::uint64_t>& ranges() const { return ranges_; }
  std::uint64_t size() const;  // numbers

  friend bool operator==(const IntervalSet&, const IntervalSet&) = default;
  template <typename Io>
  void Fields(Io& io) {
    io(ranges_);
  }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;
};

}  // namespace thresher::broker
