#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "common/base/clock.h"

namespace thresher::comm {

// The newest operations of a communicator, to be shown when one is stuck. Pure: times are passed
// in. One thread.
class OperationRing {
 public:
  enum class State : std::uint8_t {
    kPosted,   // asked for
    kStarted,  // every peer of it is known to be in it, too
    kDone,
    kFailed,
  };
  struct Entry {
    std::uint64_t sequence = 0;
    std::string what;  // "exchange 'gradients'"
    std::uint64_t sent_bytes = 0, received_bytes = 0;
    std::vector<std::uint32_t> peers;  // ascending
    State state = State::kPosted;
    TimePoint posted{}, started{}, ended{};  // zero: not yet
  };

  // "posted", "started", "done", "failed".
  static const char* StateName(State state);

  explicit OperationRing(std::size_t capacity = 32) : capacity_(capacity) {}

  // A new operation; the oldest is forgotten when there is no room.
  void Post(Entry entry, TimePoint now);
  // Of the operation posted last, which has not ended.
  void Start(TimePoint now);
  void End(bool ok, TimePoint now);

  const std::deque<Entry>& entries() const { return entries_; }
  // A line each, oldest first:
  // "#12 exchange 'gradients' 4096 B out, 4096 B in, ranks 1: done, started after 0.1 ms, 2.0 ms"
  // and for one that has not ended "... : posted, 500.0 ms so far".
  std::vector<std::string> Lines(TimePoint now) const;

 private:
  std::size_t capacity_;
  std::deque<Entry> entries_;
};

}  // namespace thresher::comm
