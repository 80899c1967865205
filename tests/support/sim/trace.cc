#include "tests/support/sim/trace.h"

#include <cstdio>

#include "common/base/hash.h"

namespace thresher::sim {
namespace {

constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15u;

}  // namespace

void Trace::Mix(std::string_view text) {
  hash_ = (hash_ ^ HashBytes64(std::as_bytes(std::span(text.data(), text.size())))) * kOdd;
  hash_ ^= hash_ >> 29;
}

void Trace::Note(TimePoint now, std::string_view who, std::string_view what,
                 std::string_view detail, std::uint64_t number) {
  ++events_;
  const auto time = static_cast<std::uint64_t>(now.time_since_epoch().count());
  hash_ = (hash_ + time) * kOdd + number;
  Mix(who);
  Mix(what);
  Mix(detail);
  if (!reader_) return;
  char head[40];
  std::snprintf(head, sizeof head, "%12.6f ", static_cast<double>(time) * 1e-9);
  std::string line = head + std::string(who) + ": " + std::string(what);
  if (!detail.empty()) line += " " + std::string(detail);
  if (number != 0) line += " " + std::to_string(number);
  reader_(line);
}

std::uint64_t& Trace::Counter(std::string_view fault) {
  auto found = counts_.find(fault);
  if (found == counts_.end()) found = counts_.emplace(fault, 0).first;
  return found->second;
}

}  // namespace thresher::sim
