#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "broker/context.h"
#include "broker/run_driver.h"

namespace thresher::broker {

// Who asks for work gets leases, or waits for them.
class LeaseService {
 public:
  LeaseService(BrokerContext& context, RunDriver& driver) : context_(context), driver_(driver) {}

  // Answered at once when there is work; else parked until there is, or answered empty after some
  // seconds. A newer request of the same actor takes the place of a parked one, which gets no
  // answer.
  void OnLeaseRequest(Peer& peer, const wire::LeaseRequest& request);
  void OnLeaseRelease(Peer& peer, const wire::LeaseRelease& release);
  // Ends expired leases and answers parked requests.
  Status Tick();

 private:
  struct Parked {
    wire::LeaseRequest request;
    Incarnation incarnation;  // who asked: a successor in its slot asks anew
    TimePoint until{};
  };
  using ParkedMap = std::map<std::uint32_t, Parked>;  // by actor slot

  void NoteActor(Peer& peer, const wire::LeaseRequest& request);
  Status EndExpired();
  void AnswerParked();
  void WalkParked(bool all);
  // It waits no longer; what comes after it.
  ParkedMap::iterator Unpark(ParkedMap::iterator parked);
  // Whether it waits no longer: it is answered, or gone.
  bool Look(const ParkedMap::value_type& parked);
  bool SamplesFree() const;
  // Whether the request was answered.
  bool TryAnswer(Peer& peer, const Parked& parked);
  Selection Select(const Peer& peer, std::uint32_t most);
  void Grant(Peer& peer, std::uint64_t request, std::vector<wire::Lease> leases);
  // Bytes of prefixes in a grant, and in all grants between two ticks.
  std::size_t PrefixRoom() const;
  // Whether somebody began one of these samples before.
  bool AnyPrefix(const std::vector<wire::Lease>& leases) const;
  // Adds the prefixes of the lease's samples, as many as there is room for; cuts off the samples
  // behind.
  void AttachPrefixes(wire::Lease& lease, std::size_t* room, std::vector<SharedBytes>* prefixes);
  // Empty: there is none that can be read.
  SharedBytes PrefixOf(const TrajectoryId& id);
  // True once per actor and published version, and again after a while if it still asks with an
  // older one: it is told at once that nothing is left for what it holds, so that it swaps.
  bool ShouldSwap(Peer& peer);
  void Announce(const Peer& peer);

  BrokerContext& context_;
  RunDriver& driver_;
  ParkedMap parked_;
  std::set<std::pair<TimePoint, std::uint32_t>> patience_;  // every parked one's `until`, and slot
  std::size_t prefix_room_ = 0;                             // until the next tick
  TimePoint next_walk_{};                                   // through parked_
  std::uint32_t walk_from_ = 0;                             // slot
  std::uint64_t seen_generation_ = 0;                       // then
  std::optional<PolicyVersion> seen_version_;               // then
};

}  // namespace thresher::broker
