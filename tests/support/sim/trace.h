#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "common/base/clock.h"

namespace thresher::sim {

// What happened in a history, in order: a hash over all of it (equal seeds have equal hashes), a
// count for each kind of fault, and the lines themselves for whoever wants to read them.
class Trace {
 public:
  // Called with each line, which tells time, process and event; empty: nobody reads.
  using Reader = std::function<void(const std::string& line)>;
  explicit Trace(Reader reader = {}) : reader_(std::move(reader)) {}

  // `who` did `what`; `detail` and `number` tell more.
  void Note(TimePoint now, std::string_view who, std::string_view what,
            std::string_view detail = {}, std::uint64_t number = 0);
  // A fault that was made, or a crash point that was passed or died at.
  void Count(std::string_view fault, std::uint64_t times = 1) {
    if (times > 0) Counter(fault) += times;
  }

  std::uint64_t hash() const { return hash_; }
  std::uint64_t events() const { return events_; }
  const std::map<std::string, std::uint64_t, std::less<>>& counts() const { return counts_; }
  bool read() const { return static_cast<bool>(reader_); }

 private:
  std::uint64_t& Counter(std::string_view fault);
  void Mix(std::string_view text);

  Reader reader_;
  std::uint64_t hash_ = 0xcbf29ce484222325u;
  std::uint64_t events_ = 0;
  std::map<std::string, std::uint64_t, std::less<>> counts_;
};

}  // namespace thresher::sim
