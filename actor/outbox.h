#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/wire/messages.h"

namespace thresher::actor {

// Finished records on their way to the broker. Each is kept until the broker has accepted it (or
// has refused it for good) and is sent again after a reconnect. A broker may ask that accepted
// uploads be kept until they are consumed: those another broker, which has forgotten them, gets
// again. Uploads are batched by count, bytes
// or age, and sent within the credit that the broker has told: what is sent and unanswered never
// exceeds it, the rest waits here. Pure: messages go out through `post`. One owner, not
// thread-safe.
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
  // What the broker grants now; an older number than the one held is ignored.
  void OnCredit(const wire::Credit& credit, TimePoint now);
  // Number of records this ack settled: 0 for an upload that is unknown, for one that was beyond
  // the credit (it waits again), and for an ack that lacks a verdict, which settles no record.
  std::size_t OnAck(const wire::UploadAck& ack);
  // They will not be asked for again. One that is on its way again is answered first.
  void OnConsumed(const wire::Consumed& consumed);
  // Of a Welcome, before ResendAll. In another epoch than before what is kept is sent again.
  void OnEpoch(BrokerEpoch epoch, bool keep_until_consumed);
  // After a Welcome, whose broker knows nothing of earlier credit: everything unanswered is sent
  // again, within the new one.
  void ResendAll(const wire::Credit& credit, TimePoint now);

  // What to tell the broker of the credit: see wire::Credit.
  wire::Credit Obeyed() const;
  // Something is due and the credit does not allow it: more work would only lie here.
  bool blocked() const { return blocked_; }
  // Uploads kept until they are consumed, of the first Heartbeat::kMostKeptTold; bytes of all.
  std::vector<std::uint64_t> Kept() const;
  std::size_t kept_bytes() const { return kept_bytes_; }
  // The leases of records not yet accepted.
  std::set<FencingToken> Fences() const;
  // Records not yet accepted.
  std::size_t unaccepted() const { return unaccepted_; }
  std::uint64_t uploads_sent() const { return next_upload_ - 1; }

 private:
  struct Record {
    FencingToken fence;
    SharedBytes bytes;
    TimePoint since{};
  };
  struct Pending {
    wire::Upload upload;
    std::size_t bytes = 0;
    TimePoint sent{};
    bool waits = false;     // for credit; not counted as unanswered
    bool answered = false;  // by an earlier broker; not counted as unaccepted
  };
  using Uploads = std::map<std::uint64_t, Pending>;
  bool Allows(std::size_t bytes) const { return unanswered_bytes_ + bytes <= credit_.bytes; }
  // The uploads that wait, then new ones as long as one is full, or of whatever is there.
  void Send(TimePoint now, bool everything);
  bool SendWaiting(TimePoint now);
  bool SendNew(TimePoint now);
  void PostUpload(Pending& pending, TimePoint now);
  // An upload larger than the whole credit: its records wait anew, for smaller uploads. Returns the
  // one behind it.
  Uploads::iterator TakeApart(Uploads::iterator upload);

  Poster post_;
  RefusalHandler on_refused_;
  Limits limits_;
  wire::Credit credit_;
  std::deque<Record> records_;  // in no upload yet
  std::size_t record_bytes_ = 0;
  Uploads pending_;
  Uploads kept_;  // answered by this broker, not consumed
  std::size_t kept_bytes_ = 0;
  BrokerEpoch epoch_;
  bool keep_ = false;
  std::size_t unanswered_bytes_ = 0;
  std::uint64_t next_upload_ = 1;
  std::size_t unaccepted_ = 0;
  bool blocked_ = false;
};

}  // namespace thresher::actor
