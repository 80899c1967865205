#include "broker/interval_set.h"

#include <algorithm>

namespace thresher::broker {

void IntervalSet::Insert(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  auto next = ranges_.upper_bound(begin);
  if (next != ranges_.begin()) {
    auto before = std::prev(next);
    if (before->second >= begin) {
      begin = before->first;
      end = std::max(end, before->second);
      ranges_.erase(before);
    }
  }
  while (next != ranges_.end() && next->first <= end) {
    end = std::max(end, next->second);
    next = ranges_.erase(next);
  }
  ranges_[begin] = end;
}

bool IntervalSet::Contains(std::uint64_t number) const {
  auto next = ranges_.upper_bound(number);
  return next != ranges_.begin() && number < std::prev(next)->second;
}

std::uint64_t IntervalSet::size() const {
  std::uint64_t numbers = 0;
  for (const auto& [begin, end] : ranges_) numbers += end - begin;
  return numbers;
}

}  // namespace thresher::broker
