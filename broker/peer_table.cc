#include "broker/peer_table.h"

#include <algorithm>

namespace thresher::broker {
namespace {

constexpr std::size_t kRememberedIncarnations = 1024;
constexpr std::size_t kMostTools = 64;

}  // namespace

const char* RoleName(wire::PeerRole role) {
  switch (role) {
    case wire::PeerRole::kActor:
      return "actor";
    case wire::PeerRole::kLearner:
      return "learner";
    case wire::PeerRole::kTool:
      return "tool";
  }
  return "unknown";
}

std::string Peer::Label() const {
  return std::string(RoleName(role)) + (role == wire::PeerRole::kLearner ? " rank " : " ") +
         std::to_string(index);
}

// Tools have no slots: several may look on at the same time.
PeerTable::SlotKey PeerTable::SlotOf(const wire::Hello& hello, Incarnation incarnation) {
  const bool tool = hello.role == wire::PeerRole::kTool;
  return {hello.role, tool ? static_cast<std::uint32_t>(incarnation.value) : hello.index};
}

bool PeerTable::LacksSlot(const wire::Hello& hello) const {
  return hello.role == wire::PeerRole::kActor && actors_ >= limits_.actors &&
         !slots_.contains({hello.role, hello.index});
}

Peer* PeerTable::GivesWay(const wire::Hello& hello, TimePoint now) {
  if (!LacksSlot(hello) || now < full_until_) return nullptr;
  const std::vector<Peer*> actors = WithRole(wire::PeerRole::kActor);
  Peer* silent =
      *std::ranges::min_element(actors, {}, [](const Peer* actor) { return actor->last_seen; });
  full_until_ = silent->last_seen + limits_.silence;
  return now > full_until_ ? silent : nullptr;
}

Status PeerTable::MayRegister(const wire::Hello& hello, const net::PeerAddress& address,
                              Incarnation incarnation, const std::string& key_user_id,
                              TimePoint now) {
  if (key_user_id != "local" && key_user_id != RoleName(hello.role)) {
    return PermissionDenied("the key of '" + key_user_id + "' may not act as " +
                            RoleName(hello.role));
  }
  if (retired_.contains(incarnation)) {
    return FailedPrecondition("a newer process has taken this slot");
  }
  const auto before = addresses_.find(address);
  if (before != addresses_.end() &&
      SlotKey(before->second->role, before->second->index) != SlotOf(hello, incarnation)) {
    return AlreadyExists("this connection speaks for " + before->second->Label());
  }
  if (LacksSlot(hello) && GivesWay(hello, now) == nullptr) {
    return ResourceExhausted(std::to_string(actors_) + " actors take part, and none is silent; " +
                             "allowed: " + std::to_string(limits_.actors));
  }
  return Status::Ok();
}

Result<PeerTable::Registration> PeerTable::Register(const wire::Hello& hello,
                                                    const net::PeerAddress& address,
                                                    Incarnation incarnation,
                                                    const std::string& key_user_id, TimePoint now) {
  THRESHER_RETURN_IF_ERROR(MayRegister(hello, address, incarnation, key_user_id, now));
  if (const Peer* silent = GivesWay(hello, now)) Forget(*silent);
  const SlotKey key = SlotOf(hello, incarnation);
  Registration result;
  auto old = slots_.find(key);
  if (old != slots_.end()) {
    result.returned = old->second.incarnation == incarnation;
    result.replaced = !result.returned;
    addresses_.erase(old->second.address);
    if (result.replaced) Retire(old->second);
  }
  if (old == slots_.end() && hello.role == wire::PeerRole::kTool) MakeRoomForATool();
  if (old == slots_.end() && hello.role == wire::PeerRole::kActor) ++actors_;
  Peer& peer = slots_[key];
  if (result.replaced) peer = Peer{};
  peer.role = hello.role;
  peer.index = key.second;
  peer.world = hello.world;
  peer.incarnation = incarnation;
  peer.address = address;
  peer.name = hello.name;
  peer.pid = hello.pid;
  peer.last_seen = now;
  peer.has_weights = hello.has_weights;
  peer.weights = hello.weights;
  peer.weights_hash = hello.weights_hash;
  addresses_[address] = &peer;
  result.peer = &peer;
  return result;
}

PeerTable::Sender PeerTable::Identify(const net::PeerAddress& address, Incarnation incarnation,
                                      TimePoint now, Peer** peer) {
  if (retired_.contains(incarnation)) return Sender::kRetired;
  auto found = addresses_.find(address);
  if (found == addresses_.end()) return Sender::kUnknown;
  Peer& known = *found->second;
  if (known.incarnation != incarnation) return Sender::kUnknown;
  known.last_seen = now;
  *peer = &known;
  return Sender::kKnown;
}

// The one that was silent for longest goes: who only looks on may leave without a word.
void PeerTable::MakeRoomForATool() {
  const std::vector<Peer*> tools = WithRole(wire::PeerRole::kTool);
  if (tools.size() < kMostTools) return;
  Remove(**std::ranges::min_element(tools, {}, [](const Peer* tool) { return tool->last_seen; }));
}

// Tools have no slot that a newer process could have taken.
void PeerTable::Retire(const Peer& peer) {
  if (peer.role == wire::PeerRole::kTool) return;
  if (retired_.insert(peer.incarnation).second) retired_in_order_.push_back(peer.incarnation);
  if (retired_.size() > kRememberedIncarnations) {
    retired_.erase(retired_in_order_.front());
    retired_in_order_.pop_front();
  }
  KeepCounters(peer);
}

void PeerTable::KeepCounters(const Peer& peer) {
  if (peer.role != wire::PeerRole::kActor) return;
  for (const auto& [number, value] : peer.counters) past_counters_[number] += value;
}

void PeerTable::Remove(const Peer& peer) {
  Retire(peer);
  Erase(peer);
}

void PeerTable::Forget(const Peer& peer) {
  KeepCounters(peer);
  Erase(peer);
}

void PeerTable::Erase(const Peer& peer) {
  addresses_.erase(peer.address);
  if (peer.role == wire::PeerRole::kActor) --actors_;
  slots_.erase({peer.role, peer.index});
}

std::vector<Peer*> PeerTable::WithRole(wire::PeerRole role) {
  std::vector<Peer*> peers;
  for (auto& [key, peer] : slots_) {
    if (key.first == role) peers.push_back(&peer);
  }
  return peers;
}

std::vector<const Peer*> PeerTable::All() const {
  std::vector<const Peer*> peers;
  for (const auto& [key, peer] : slots_) peers.push_back(&peer);
  return peers;
}

Peer* PeerTable::Find(wire::PeerRole role, std::uint32_t index) {
  auto found = slots_.find({role, index});
  return found == slots_.end() ? nullptr : &found->second;
}

Peer* PeerTable::At(const net::PeerAddress& address) {
  auto found = addresses_.find(address);
  return found == addresses_.end() ? nullptr : found->second;
}

std::map<std::string, double> PeerTable::ActorCounters() const {
  std::map<std::uint32_t, double> sums = past_counters_;
  for (const auto& [key, peer] : slots_) {
    if (peer.role != wire::PeerRole::kActor) continue;
    for (const auto& [number, value] : peer.counters) sums[number] += value;
  }
  return counter_names_.Named(sums);
}

}  // namespace thresher::broker
