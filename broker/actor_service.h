#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "broker/context.h"
#include "broker/run_driver.h"

namespace thresher::broker {

// The actors' side: leases out, trajectories in.
class ActorService {
 public:
  ActorService(BrokerContext& context, RunDriver& driver) : context_(context), driver_(driver) {}

  // Answered at once when there is work; else parked until there is, or answered empty after some
  // seconds. A newer request of the same actor takes the place of a parked one, which gets no
  // answer.
  void OnLeaseRequest(Peer& peer, const wire::LeaseRequest& request);
  void OnLeaseRelease(Peer& peer, const wire::LeaseRelease& release);
  // Whether the upload is within its actor's credit. One that is not is not looked at: it is sent
  // again.
  bool Admit(Peer& peer, const wire::Upload& upload);
  // Whether a large frame from here is not worth a look: this actor keeps sending what is refused,
  // which it may do now and then. The others' frames come first.
  bool Floods(const net::PeerAddress& address);
  // Sets *wanted when a record of it was accepted.
  Status OnUpload(Peer& peer, const wire::Upload& upload, bool* wanted);
  Status OnSampleFailed(Peer& peer, const wire::SampleFailed& failed);
  void OnHeartbeat(Peer& peer, const wire::Heartbeat& heartbeat);
  // Ends expired leases and answers parked requests.
  Status Tick();

 private:
  struct Parked {
    wire::LeaseRequest request;
    Incarnation incarnation;  // who asked: a successor in its slot asks anew
    TimePoint until{};
  };

  void NoteActor(Peer& peer, const wire::LeaseRequest& request);
  using ParkedMap = std::map<std::uint32_t, Parked>;  // by actor slot
  // A peer makes up the names: neither many nor long ones are kept.
  void NoteCounters(Peer& peer, const wire::Heartbeat& heartbeat);
  void AnswerParked();
  void WalkParked(bool all);
  // It waits no longer; what comes after it.
  ParkedMap::iterator Unpark(ParkedMap::iterator parked);
  // Whether it waits no longer: it is answered, or gone.
  bool Look(const ParkedMap::value_type& parked);
  bool SamplesFree() const;
  // Whether the request was answered.
  bool TryAnswer(Peer& peer, const Parked& parked);
  void Grant(Peer& peer, std::uint64_t request, const std::vector<wire::Lease>& leases);
  // True once per actor and published version, and again after a while if it still asks with an
  // older one: it is told at once that nothing is left for what it holds, so that it swaps.
  bool ShouldSwap(const Peer& peer);
  void Announce(const Peer& peer);
  // `*id`: of the record, where it has one.
  wire::UploadVerdict TakeRecord(Peer& peer, const SharedBytes& bytes, std::string* reason,
                                 TrajectoryId* id, Status* fatal);
  // A copy of what is accepted, whose bytes may be here no longer.
  void TakeAgain(const TrajectoryId& id, const SharedBytes& bytes, const ArrayRanges& arrays);
  // The actor keeps the upload, of which these samples are accepted.
  void NoteKept(const Peer& peer, const wire::Upload& upload, const std::vector<TrajectoryId>& ids);
  void TellConsumed();
  void NoteRefusal(Peer& peer, std::size_t bytes, const std::string& reason);
  void NoteRefused(Peer& peer, std::size_t bytes);
  // Whose main loop speaks takes part again.
  void Join(const Peer& peer);
  // Takes the credit of those that are silent.
  void CloseSilentAccounts();

  BrokerContext& context_;
  RunDriver& driver_;
  ParkedMap parked_;
  std::set<std::pair<TimePoint, std::uint32_t>> patience_;  // every parked one's `until`, and slot
  struct Told {
    PolicyVersion version;
    TimePoint at{};
  };
  std::map<std::uint32_t, Told> told_to_swap_;  // by actor
  TimePoint next_account_look_{};
  TimePoint next_walk_{};                      // through parked_
  std::uint32_t walk_from_ = 0;                // slot
  std::uint64_t seen_generation_ = 0;          // then
  std::optional<PolicyVersion> seen_version_;  // then
};

}  // namespace thresher::broker
