#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "broker/peer_counters.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/net/socket.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// A peer that said Hello: one process start (incarnation) in one slot (role, index).
struct Peer {
  wire::PeerRole role = wire::PeerRole::kActor;
  std::uint32_t index = 0;
  std::uint32_t world = 0;
  Incarnation incarnation;
  net::PeerAddress address;
  std::string name;
  std::uint32_t pid = 0;
  TimePoint last_seen{};
  bool has_weights = false;
  PolicyVersion weights;
  Hash128 weights_hash;
  std::uint64_t progress = 0;
  std::uint32_t capacity = 0;  // actor: most samples it was seen to take at once
  PeerCounters counters;
  std::string waiting;  // learner: what its checkpoint waits for; empty: for nothing
  // Actor: of a newer version, so that it swaps; which one, and when.
  PolicyVersion told_version;
  std::optional<TimePoint> told_at;
  std::uint64_t refused_bytes = 0;  // actor: of refused uploads, less what was forgiven since
  TimePoint forgiven{};             // when last

  std::string Label() const;  // "actor 2", "learner rank 0"
};
const char* RoleName(wire::PeerRole role);

// Who is connected. A slot belongs to the newest incarnation that said Hello; frames of the ones
// before it are told apart from those of strangers. A connection speaks for one slot, and there are
// so many slots at most, whatever peers make up: of tools the most silent goes, an actor is let in
// when another one is silent. Plain data; time is passed in.
class PeerTable {
 public:
  static constexpr std::size_t kMostActors = 1u << 14;
  struct Limits {
    std::size_t actors = kMostActors;
    Duration silence = std::chrono::seconds(5);  // after which an actor's slot may be given away
  };
  explicit PeerTable(const Limits& limits) : limits_(limits) {}
  PeerTable() : PeerTable(Limits()) {}

  enum class Sender { kKnown, kUnknown, kRetired };
  struct Registration {
    Peer* peer = nullptr;
    bool replaced = false;  // another incarnation had this slot before
    bool returned = false;  // the same incarnation said Hello before (a reconnect)
  };

  // Errors: kPermissionDenied when the key does not fit the role, kFailedPrecondition when the
  // incarnation is retired, kAlreadyExists when the connection speaks for another slot,
  // kResourceExhausted when there is no slot for another actor. `key_user_id`: "local" over ipc,
  // else the name of the peer's CURVE key.
  Status MayRegister(const wire::Hello& hello, const net::PeerAddress& address,
                     Incarnation incarnation, const std::string& key_user_id, TimePoint now);
  // The silent actor whose slot is needed for the one that says this; null: none is.
  Peer* GivesWay(const wire::Hello& hello, TimePoint now);
  // Errors: as above.
  Result<Registration> Register(const wire::Hello& hello, const net::PeerAddress& address,
                                Incarnation incarnation, const std::string& key_user_id,
                                TimePoint now);
  // Who sent a frame; sets *peer when known and marks it as seen.
  Sender Identify(const net::PeerAddress& address, Incarnation incarnation, TimePoint now,
                  Peer** peer);
  // Forgets the slot; the incarnation is retired.
  void Remove(const Peer& peer);
  // Forgets the slot; its process may come back.
  void Forget(const Peer& peer);

  std::vector<Peer*> WithRole(wire::PeerRole role);
  std::vector<const Peer*> All() const;
  Peer* Find(wire::PeerRole role, std::uint32_t index);
  // Whose connection it is; null when nobody said Hello there.
  Peer* At(const net::PeerAddress& address);
  // False: it is not kept (CounterNames).
  bool NoteCounter(Peer& peer, const std::string& name, double value) {
    return counter_names_.Note(peer.counters, name, value);
  }
  std::map<std::string, double> CountersOf(const Peer& peer) const {
    return counter_names_.Named(peer.counters);
  }
  // Counters summed over actors, past incarnations included.
  std::map<std::string, double> ActorCounters() const;

 private:
  using SlotKey = std::pair<wire::PeerRole, std::uint32_t>;
  static SlotKey SlotOf(const wire::Hello& hello, Incarnation incarnation);
  bool LacksSlot(const wire::Hello& hello) const;
  void Retire(const Peer& peer);
  void KeepCounters(const Peer& peer);
  void Erase(const Peer& peer);
  void MakeRoomForATool();

  Limits limits_;
  std::map<SlotKey, Peer> slots_;
  std::size_t actors_ = 0;                                 // slots of them
  TimePoint full_until_{};                                 // nobody is silent before
  std::unordered_map<net::PeerAddress, Peer*> addresses_;  // into slots_
  std::set<Incarnation> retired_;
  std::deque<Incarnation> retired_in_order_;  // oldest first
  CounterNames counter_names_;
  std::map<std::uint32_t, double> past_counters_;  // of actors, by the number of the name
};

}  // namespace thresher::broker
