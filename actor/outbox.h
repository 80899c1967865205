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
// exceeds it, the rest waits here.
//
// Prefixes, what there is of unfinished samples, travel in uploads of their own behind everything
// else: of a sample only the longest waits, and none is kept when it is answered. Pure: messages go
// out through `post`. One owner, not thread-safe.
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
  // What became of a prefix of so many tokens.
  using PrefixHandler = std::function<void(const TrajectoryId&, std::uint32_t tokens, bool kept)>;
  Outbox(Poster post, RefusalHandler on_refused, Limits limits, PrefixHandler on_prefix = {});

  // `tokens`: of it, that nobody has but this process.
  void Add(FencingToken fence, SharedBytes record, TimePoint now, std::uint32_t tokens = 0);
  // Takes the place of a shorter one of the sample that was not sent. Leaves with the next Tick.
  void AddPrefix(const TrajectoryId& id, FencingToken fence, std::uint32_t tokens,
                 SharedBytes record);
  // The sample is finished, or given up.
  void DropPrefix(const TrajectoryId& id);
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
  std::uint64_t unaccepted_tokens() const { return unaccepted_tokens_; }
  // Of these the tokens of records that never left.
  std::uint64_t UnsentTokens() const;
  // Tokens of records of which the broker had a copy already, which was not this process's.
  std::uint64_t duplicate_tokens() const { return duplicate_tokens_; }
  // Whether everything was answered, prefixes included.
  bool idle() const { return unaccepted_ == 0 && prefixes_.empty() && prefix_uploads_ == 0; }
  std::uint64_t uploads_sent() const { return next_upload_ - 1; }

 private:
  struct Record {
    FencingToken fence;
    SharedBytes bytes;
    TimePoint since{};
    std::uint32_t tokens = 0;
    bool again = false;  // sent before
  };
  struct Prefix {
    TrajectoryId id;
    FencingToken fence;
    std::uint32_t tokens = 0;
    SharedBytes bytes;  // empty once it is in an upload
  };
  struct Pending {
    wire::Upload upload;
    std::vector<std::uint32_t> tokens{};  // of each record
    std::vector<Prefix> prefixes{};       // what its records are; empty: finished ones
    std::size_t bytes = 0;
    TimePoint sent{};
    bool waits = false;     // for credit; not counted as unanswered
    bool again = false;     // sent before, or one of its records was
    bool answered = false;  // by an earlier broker; not counted as unaccepted
  };
  using Uploads = std::map<std::uint64_t, Pending>;
  bool Allows(std::size_t bytes) const { return unanswered_bytes_ + bytes <= credit_.bytes; }
  // The uploads that wait, then new ones as long as one is full, or of whatever is there.
  void Send(TimePoint now, bool everything);
  bool SendWaiting(TimePoint now);
  // Those of prefixes, or the others; false: one does not fit the credit.
  bool SendWaiting(bool prefixes, TimePoint now);
  bool SendNew(TimePoint now);
  void SendPrefixes(TimePoint now);
  void Settle(const Pending& pending, const wire::UploadAck& ack);
  void PostUpload(Pending& pending, TimePoint now);
  // An upload larger than the whole credit: its records wait anew, for smaller uploads. Returns the
  // one behind it.
  Uploads::iterator TakeApart(Uploads::iterator upload);

  Poster post_;
  RefusalHandler on_refused_;
  PrefixHandler on_prefix_;
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
  std::uint64_t unaccepted_tokens_ = 0, duplicate_tokens_ = 0;
  std::deque<Prefix> prefixes_;  // in no upload yet, one of a sample
  std::size_t prefix_uploads_ = 0;
  bool blocked_ = false;
};

}  // namespace thresher::actor
