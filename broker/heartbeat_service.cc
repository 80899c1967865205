#include "broker/heartbeat_service.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace thresher::broker {
namespace {

constexpr std::chrono::milliseconds kAccountLook{500};
constexpr std::chrono::milliseconds kTurnLook{5};
constexpr std::size_t kMostOfWaiting = 512;  // bytes kept of what a peer says

// A number of tokens that a heartbeat tells, whatever stands there.
std::uint64_t TokensOf(const wire::Heartbeat& heartbeat, std::string_view name) {
  constexpr double kMost = 1e15;
  for (const auto& [counter, value] : heartbeat.counters) {
    if (counter == name && value > 0) return static_cast<std::uint64_t>(std::min(value, kMost));
  }
  return 0;
}

}  // namespace

void HeartbeatService::OnHeartbeat(Peer& peer, const wire::Heartbeat& heartbeat) {
  peer.progress = heartbeat.progress;
  NoteCounters(peer, heartbeat);
  NoteWeights(peer, heartbeat);
  if (peer.role == wire::PeerRole::kLearner) NoteWaiting(peer, heartbeat.waiting);
  if (peer.role == wire::PeerRole::kActor) {
    const std::size_t unknown =
        context_.leases.Heartbeat(ActorId(peer.index), heartbeat, context_.ListeningTime());
    context_.metrics.Count("stale_fences", static_cast<double>(unknown));
  }
  Answer(peer, heartbeat);
}

void HeartbeatService::NoteWeights(Peer& peer, const wire::Heartbeat& heartbeat) {
  if (peer.has_weights != heartbeat.has_weights || peer.weights != heartbeat.weights) {
    context_.CountActorsAnew();
  }
  peer.has_weights = heartbeat.has_weights;
  peer.weights = heartbeat.weights;
  const bool other_hash = heartbeat.has_weights && heartbeat.weights_hash != peer.weights_hash;
  peer.weights_hash = heartbeat.weights_hash;
  if (!other_hash) return;
  const wire::VersionPublished* published = context_.state.Published(heartbeat.weights);
  if (published == nullptr || published->hash == heartbeat.weights_hash) return;
  context_.metrics.Count("weights_hash_mismatches");
  context_.events.Add(EventLevel::kAlarm, "weights_hash",
                      peer.Label() + " holds version " + heartbeat.weights.ToString() +
                          " with hash " + heartbeat.weights_hash.ToString() + ", published as " +
                          published->hash.ToString());
}

// Training goes on meanwhile, up to the next checkpoint.
void HeartbeatService::NoteWaiting(Peer& peer, std::string_view why) {
  const bool began = peer.waiting.empty() && !why.empty();
  peer.waiting = why.substr(0, kMostOfWaiting);
  if (!began) return;
  context_.events.Add(EventLevel::kWarning, "checkpoint_waits",
                      "the checkpoint of " + peer.Label() + " waits for room: " + peer.waiting);
}

void HeartbeatService::Answer(const Peer& peer, const wire::Heartbeat& heartbeat) {
  wire::HeartbeatAck ack = Ack();
  if (peer.role == wire::PeerRole::kActor) {
    const ActorId actor(peer.index);
    // Taken for silent meanwhile: what it keeps for lack of credit would never come.
    if (!context_.admission.Joined(actor)) context_.admission.Join(actor);
    context_.admission.NoteObeyed(actor, heartbeat.credit);
    const wire::Credit credit = context_.admission.Tell(actor);
    if (credit.number != heartbeat.credit.number) ack.credit = credit;
  }
  context_.outbox.SendNow(peer.address, ack);
  if (heartbeat.kept.empty() || heartbeat.kept.size() > wire::Heartbeat::kMostKeptTold) return;
  auto consumed = context_.kept.Consumed(ActorId(peer.index), heartbeat.kept);
  if (!consumed.empty()) context_.outbox.Send(peer.address, wire::Consumed{std::move(consumed)});
}

wire::HeartbeatAck HeartbeatService::Ack() const {
  wire::HeartbeatAck ack;
  ack.has_weights = context_.visible_version.has_value();
  ack.newest = context_.visible_version.value_or(PolicyVersion{});
  return ack;
}

void HeartbeatService::NoteCounters(Peer& peer, const wire::Heartbeat& heartbeat) {
  if (peer.role == wire::PeerRole::kActor) {
    context_.tally.Note(ActorId(peer.index),
                        {TokensOf(heartbeat, wire::Heartbeat::kUnsavedTokens),
                         TokensOf(heartbeat, wire::Heartbeat::kLostTokens),
                         TokensOf(heartbeat, wire::Heartbeat::kContinuedTokens)});
  }
  for (const auto& [name, value] : heartbeat.counters) {
    if (!context_.peers.NoteCounter(peer, name, value)) {
      context_.metrics.Count("peer_counters_not_kept");
    }
  }
}

void HeartbeatService::Tick() {
  const TimePoint now = context_.Now();
  if (now >= next_account_look_) {
    next_account_look_ = now + kAccountLook;
    TakeFromTheSilent();
  }
  if (now < next_turns_) return;
  next_turns_ = now + kTurnLook;
  TellThoseInTurn();
}

void HeartbeatService::TakeFromTheSilent() {
  std::vector<ActorId> silent;
  for (const auto& [actor, account] : context_.admission.accounts()) {
    const Peer* peer = context_.peers.Find(wire::PeerRole::kActor, actor.value);
    if (peer == nullptr || !context_.Alive(*peer)) silent.push_back(actor);
  }
  std::ranges::sort(silent);  // for the same in every run
  for (ActorId actor : silent) {
    context_.admission.Leave(actor);
    context_.tally.Silent(actor);
  }
}

// A heartbeat's answer without a heartbeat: where thousands take turns, what one gives back would
// lie idle until the next one happens to speak.
void HeartbeatService::TellThoseInTurn() {
  for (ActorId actor : context_.admission.InTurn()) {
    const Peer* peer = context_.peers.Find(wire::PeerRole::kActor, actor.value);
    if (peer == nullptr || !context_.Alive(*peer)) continue;
    wire::HeartbeatAck ack = Ack();
    ack.credit = context_.admission.Tell(actor);
    context_.outbox.SendNow(peer->address, ack);
  }
}

}  // namespace thresher::broker
