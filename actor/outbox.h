#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/wire/messages.h"

namespace thresher::actor {

// Finished records on their way to the broker. Each is kept until the broker has accepted it (or
// has refused it for good) and is sent again after a reconnect. Uploads are batched by count, bytes
// or age. Pure: messages go out through `post`. One owner, not thread-safe.
class Outbox {
 public:
  struct Limits {
    std::size_t records = 64;
    std::size_t bytes = 512u << 10;
    Duration age = std::chrono::milliseconds(50);
    Duration retry = std::chrono::seconds(5);  // unanswered uploads go out again
  };
  using Poster = std::function<void(const wire::Message&)>;
  // What the broker said of a record that it does not want; `conflict` records are an alarm.
  using RefusalHandler = std::function<void(wire::UploadVerdict, const std::string& reason)>;
  Outbox(Poster post, RefusalHandler on_refused, Limits limits);

  void Add(FencingToken fence, SharedBytes record, TimePoint now);
  // Sends what is due; `flush` sends everything that waits.
  void Tick(TimePoint now, bool flush);
  // Number of records this ack settled: 0 for an upload that is unknown, and for an ack without a
  // verdict on every record, which settles none of them.
  std::size_t OnAck(const wire::UploadAck& ack);
  // After a Welcome: everything unanswered is sent again.
  void ResendAll(TimePoint now);
  // Records not yet accepted.
  std::size_t unaccepted() const { return unaccepted_; }
  std::uint64_t uploads_sent() const { return next_upload_ - 1; }

 private:
  struct Pending {
    wire::Upload upload;
    TimePoint sent{};
  };
  void SendOpen(TimePoint now);

  Poster post_;
  RefusalHandler on_refused_;
  Limits limits_;
  wire::Upload open_;
  std::size_t open_bytes_ = 0;
  TimePoint open_since_{};
  std::map<std::uint64_t, Pending> pending_;
  std::uint64_t next_upload_ = 1;
  std::size_t unaccepted_ = 0;
};

}  // namespace thresher::actor
