#include "common/comm/operation_ring.h"

#include <cstdio>

#include "common/base/check.h"

namespace thresher::comm {
namespace {

std::string Milliseconds(Duration duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms",
                std::chrono::duration<double, std::milli>(duration).count());
  return text;
}

std::string Line(const OperationRing::Entry& entry, TimePoint now) {
  std::string ranks;
  for (std::uint32_t peer : entry.peers) {
    ranks += (ranks.empty() ? "" : ", ") + std::to_string(peer);
  }
  const bool ended = entry.ended != TimePoint{};
  const bool met = entry.started != TimePoint{};
  return "#" + std::to_string(entry.sequence) + " " + entry.what + " " +
         std::to_string(entry.sent_bytes) + " B out, " + std::to_string(entry.received_bytes) +
         " B in, ranks " + (ranks.empty() ? "none" : ranks) + ": " +
         OperationRing::StateName(entry.state) +
         (met ? ", started after " + Milliseconds(entry.started - entry.posted) : "") + ", " +
         Milliseconds((ended ? entry.ended : now) - entry.posted) + (ended ? "" : " so far");
}

}  // namespace

const char* OperationRing::StateName(State state) {
  switch (state) {
    case State::kPosted:
      return "posted";
    case State::kStarted:
      return "started";
    case State::kDone:
      return "done";
    case State::kFailed:
      return "failed";
  }
  return "?";
}

void OperationRing::Post(Entry entry, TimePoint now) {
  THRESHER_CHECK(capacity_ > 0, "a ring without room");
  if (entries_.size() == capacity_) entries_.pop_front();
  entry.state = State::kPosted;
  entry.posted = now;
  entries_.push_back(std::move(entry));
}

void OperationRing::Start(TimePoint now) {
  THRESHER_CHECK(!entries_.empty() && entries_.back().state == State::kPosted,
                 "an operation starts that was not posted");
  entries_.back().state = State::kStarted;
  entries_.back().started = now;
}

void OperationRing::End(bool ok, TimePoint now) {
  THRESHER_CHECK(!entries_.empty() && entries_.back().ended == TimePoint{},
                 "an operation ends that was not posted");
  entries_.back().state = ok ? State::kDone : State::kFailed;
  entries_.back().ended = now;
}

std::vector<std::string> OperationRing::Lines(TimePoint now) const {
  std::vector<std::string> lines;
  for (const Entry& entry : entries_) lines.push_back(Line(entry, now));
  return lines;
}

}  // namespace thresher::comm
