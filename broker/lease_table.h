#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "broker/group_key.h"
#include "broker/number_map.h"
#include "broker/sample_map.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/wire/messages.h"

namespace thresher::broker {

struct LeaseLimits {
  Duration silence{};       // without a heartbeat that names the lease
  Duration min_progress{};  // with an engine that stands still; at least 10 x its longest step
  int max_attempts = 1;     // expiries of an item before its samples are dropped as kDeadline
};

// Which actor works on which samples. A lease ends when all of its samples are accepted or dropped,
// is released, expires, or its actor restarts. It is a promise of attention only: a finished sample
// is judged by its id, whatever became of its lease, so nothing here is journalled; a restarted
// broker begins with an empty table and a higher epoch in its fencing tokens.
//
// Expiry: silence, or no progress for max(min_progress, 10 x the actor's longest step); both
// limits double with every expiry of the item. A restart of an actor frees its leases without
// counting as an expiry: how often an actor may restart is its supervisor's limit.
//
// Time is passed in. Plain data, not thread-safe.
class LeaseTable {
 public:
  struct Expiry {
    wire::Lease lease;
    ActorId actor;
    std::vector<TrajectoryId> unfinished;  // free again
    int attempts = 0;                      // expiries of the item, this one included
    bool give_up = false;                  // attempts reached max_attempts
    std::string reason;                    // "silent for 5200 ms", "no progress for 30 s"
  };

  LeaseTable(BrokerEpoch epoch, const LeaseLimits& limits);

  // Leases samples of `lease` (its fence is ignored); none of them may be leased (checked).
  // Returns the lease with its fencing token: epoch in the upper 24 bits, then a counter.
  wire::Lease Grant(ActorId actor, wire::Lease lease, TimePoint now);
  // Renews the named leases of this actor. Returns how many of them are unknown or another's.
  std::size_t Heartbeat(ActorId actor, const wire::Heartbeat& heartbeat, TimePoint now);
  // Hands samples back; none named: all that are unfinished. Errors: kNotFound (stale fence),
  // kPermissionDenied (another actor's).
  Status Release(ActorId actor, FencingToken fence, const std::vector<TrajectoryId>& samples);
  // Whether this fence is a live lease of this actor that covers the sample.
  bool Holds(ActorId actor, FencingToken fence, const TrajectoryId& id) const;
  // The sample was accepted or dropped: no lease covers it any more.
  void Complete(const TrajectoryId& id);
  // Frees every lease of an actor; returns how many samples that were.
  std::size_t ReleaseActor(ActorId actor);
  // Ends what has expired. Costs what expires, and a look at each lease about once in the time
  // that it may be silent.
  std::vector<Expiry> Expire(TimePoint now);
  // Attempts of groups that are closed need not be remembered.
  void Forget(const GroupKey& group);

  bool IsLeased(const TrajectoryId& id) const { return by_sample_.Contains(id); }
  // Samples an actor works on: of evaluations, or of everything else.
  std::size_t HeldBy(ActorId actor, bool evaluation) const;
  std::size_t HeldBy(ActorId actor) const { return HeldBy(actor, false) + HeldBy(actor, true); }
  // Grows whenever samples become free again that are neither accepted nor dropped.
  std::uint64_t freed() const { return freed_; }
  std::size_t leased_samples() const { return by_sample_.size(); }
  std::size_t leases() const { return leases_.size(); }

 private:
  struct Entry {
    wire::Lease lease;
    ActorId actor;
    std::size_t unfinished = 0;  // of its samples, those that by_sample_ gives to it
    TimePoint granted;
    TimePoint renewed;
    TimePoint due;  // where it stands in due_
  };
  struct Engine {
    std::uint64_t progress = 0;
    TimePoint changed{};
    Duration longest_step{};
  };
  struct Holder {
    std::vector<FencingToken> fences;   // of its leases, ascending
    std::array<std::size_t, 2> held{};  // samples: all but those of evaluations, and those
    std::optional<Engine> engine;       // nothing: not heard of yet
  };
  // The limits of this lease, doubled as often as its item has expired.
  Duration SilenceLimit(const Entry& entry) const;
  Duration ProgressLimit(const Entry& entry, const Engine& engine) const;
  int DoublingsOf(const Entry& entry) const;
  // The last moment at which `entry` has not expired, from what is known now.
  TimePoint Deadline(const Entry& entry) const;
  Entry* Find(FencingToken fence);
  const Entry* Find(FencingToken fence) const { return const_cast<LeaseTable*>(this)->Find(fence); }
  // Why `entry` has expired; after its deadline.
  std::string ExpiredBecause(const Entry& entry, TimePoint now) const;
  std::vector<TrajectoryId> UnfinishedOf(const Entry& entry) const;
  // Its deadline may have become earlier.
  void Reschedule(Entry& entry);
  void Erase(Entry& entry);
  // Of a lease without unfinished samples.
  void Remove(Entry& entry);

  LeaseLimits limits_;
  std::uint64_t next_fence_;
  NumberMap<Entry> leases_;  // by fence
  // A heap with every lease at its `due`, a moment that is not behind its deadline: what may have
  // expired stands in front. A deadline that moves away is looked up when its old moment has come.
  // What is no lease's `due` any more says nothing, and goes when its moment comes.
  using Due = std::pair<TimePoint, FencingToken>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::unordered_map<ActorId, Holder> holders_;
  std::uint64_t freed_ = 0;
  SampleMap<FencingToken> by_sample_;
  std::map<GroupKey, int> attempts_;
};

}  // namespace thresher::broker
