#include "broker/session_service.h"

#include <algorithm>
#include <string_view>

#include "common/wire/protocol_version.h"

namespace thresher::broker {
namespace {

constexpr std::size_t kMostVersionsTold = 16;
constexpr std::size_t kMostTextBytes = 256;  // of a peer's name and of the texts of its identity

// What is counted when PeerTable refuses.
const char* KindOf(const Status& refused) {
  switch (refused.code()) {
    case StatusCode::kPermissionDenied:
      return "key";
    case StatusCode::kAlreadyExists:
      return "connection";
    case StatusCode::kResourceExhausted:
      return "full";
    default:
      return "retired";
  }
}

// Such a text is the same when it was written to a file and read again.
bool Plain(std::string_view text) {
  return text.size() <= kMostTextBytes &&
         std::ranges::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7e; });
}

}  // namespace

void SessionService::Refuse(const net::PeerAddress& address, const std::string& who,
                            const char* kind, const std::string& reason) {
  context_.metrics.Count("peers_refused");
  context_.metrics.Count(std::string("peers_refused_") + kind);
  context_.events.Add(EventLevel::kWarning, "refused", who + ": " + reason);
  context_.outbox.SendNow(address, wire::Refused{reason});
}

std::string SessionService::ShapeFault(const wire::Hello& hello) const {
  const RunIdentity& id = hello.identity;
  for (const std::string* text : {&hello.name, &id.backend, &id.architecture, &id.kernel_set,
                                  &id.weight_type, &id.compute_type, &id.kv_type, &id.build}) {
    if (Plain(*text)) continue;
    return "a name or a text of the identity has " + std::to_string(text->size()) +
           " bytes, or unprintable ones; allowed: " + std::to_string(kMostTextBytes) + " of ASCII";
  }
  if (hello.role == wire::PeerRole::kActor && hello.index >= (1u << 20)) {
    return "actor slot " + std::to_string(hello.index) + "; allowed: below 1048576";
  }
  if (hello.role != wire::PeerRole::kLearner) return "";
  std::uint32_t leaves = static_cast<std::uint32_t>(context_.config.learner.grad_leaves);
  if (hello.world == 0 || hello.world > leaves || hello.index >= hello.world) {
    return "learner rank " + std::to_string(hello.index) + " of " + std::to_string(hello.world) +
           "; allowed: 1 to " + std::to_string(leaves) + " ranks (learner.grad_leaves)";
  }
  return "";
}

Result<std::string> SessionService::IdentityFault(const wire::Hello& hello) {
  if (hello.role == wire::PeerRole::kTool) return std::string();
  if (hello.identity.run_seed != context_.config.run.seed) {
    return "run seed " + std::to_string(hello.identity.run_seed) + ", configured " +
           std::to_string(context_.config.run.seed);
  }
  const std::size_t before = context_.identities.others().size();
  THRESHER_ASSIGN_OR_RETURN(std::string fault, context_.identities.Admit(hello.identity));
  if (context_.identities.others().size() > before) {
    context_.metrics.Count("numerics_not_strict");
    context_.events.Add(EventLevel::kWarning, "not_strict",
                        hello.name + " computes with other numerics: " +
                            context_.identities.run()->Difference(hello.identity));
  }
  return fault;
}

Status SessionService::OnHello(const wire::Hello& hello, const net::PeerAddress& address,
                               Incarnation incarnation, const std::string& key_user_id) {
  std::string who = Plain(hello.name) && !hello.name.empty() ? hello.name : RoleName(hello.role);
  // First: who may not speak at all must not fix the identity of the run.
  const TimePoint now = context_.ListeningTime();
  const Status may = context_.peers.MayRegister(hello, address, incarnation, key_user_id, now);
  if (!may.ok()) {
    Refuse(address, who, KindOf(may), may.message());
    return Status::Ok();
  }
  std::string fault = ShapeFault(hello);
  if (!fault.empty()) {
    Refuse(address, who, "shape", fault);
    return Status::Ok();
  }
  Result<std::string> difference = IdentityFault(hello);
  if (!difference.ok()) {  // identity.json cannot be written now: the peer says Hello again
    context_.events.Add(EventLevel::kWarning, "identity", difference.status().ToString());
    return Status::Ok();
  }
  if (!difference->empty()) {
    Refuse(address, who, "identity", "run identity differs: " + *difference);
    return Status::Ok();
  }
  if (Peer* silent = context_.peers.GivesWay(hello, now)) {
    context_.metrics.Count("actors_forgotten");
    context_.events.Add(EventLevel::kWarning, "forgotten",
                        silent->Label() + " is silent, and its slot is needed");
    Free(*silent);
    context_.tally.Silent(ActorId(silent->index));
    context_.peers.Forget(*silent);
  }
  Result<PeerTable::Registration> registered =
      context_.peers.Register(hello, address, incarnation, key_user_id, now);
  THRESHER_RETURN_IF_ERROR(registered.status());  // may, as just seen
  context_.CountActorsAnew();
  const Peer& peer = *registered->peer;
  if (peer.role == wire::PeerRole::kActor) {
    context_.tally.Speaks(ActorId(peer.index), incarnation);
    if (!registered->returned) context_.kept.Forget(ActorId(peer.index));
  }
  if (registered->replaced) {
    context_.metrics.Count(std::string(RoleName(peer.role)) + "_restarts");
    context_.events.Add(EventLevel::kWarning, "restarted",
                        peer.Label() + " has a new process, pid " + std::to_string(peer.pid));
    if (peer.role == wire::PeerRole::kActor) {
      std::size_t freed = context_.leases.ReleaseActor(ActorId(peer.index));
      context_.metrics.Count("samples_freed_by_restart", static_cast<double>(freed));
    }
  } else if (!registered->returned) {
    context_.events.Add(EventLevel::kInfo, "joined", peer.Label() + " (" + who + ")");
  }
  driver_.NoteWork();
  return Welcome(peer);
}

Status SessionService::Welcome(const Peer& peer) {
  wire::Welcome welcome;
  welcome.epoch = context_.state.epoch();
  welcome.run_seed = context_.config.run.seed;
  welcome.heartbeat_ms = static_cast<std::uint32_t>(context_.config.net.heartbeat_ms);
  welcome.committed_steps = context_.state.committed_steps();
  welcome.durable_steps = context_.state.durable_steps();
  std::optional<PolicyVersion> newest = context_.state.NewestPublished();
  if (newest) {
    THRESHER_ASSIGN_OR_RETURN(welcome.weights, context_.weights.Manifest(context_.state, *newest));
    welcome.has_weights = true;
  }
  if (peer.role == wire::PeerRole::kActor) {
    context_.admission.Join(ActorId(peer.index));
    welcome.credit = context_.admission.Tell(ActorId(peer.index));
    welcome.keep_until_consumed = context_.config.journal.off();
  }
  context_.outbox.Send(peer.address, std::move(welcome));
  if (!shutdown_reason_.empty()) {
    context_.outbox.Send(peer.address, ShutdownOf(peer.role));
  }
  return Status::Ok();
}

void SessionService::Free(const Peer& peer) {
  if (peer.role != wire::PeerRole::kActor) return;
  const ActorId actor(peer.index);
  context_.leases.ReleaseActor(actor);
  context_.admission.Leave(actor);
  context_.kept.Forget(actor);
}

void SessionService::OnGoodbye(Peer& peer, const wire::Goodbye& goodbye) {
  context_.events.Add(EventLevel::kInfo, "left", peer.Label() + ": " + goodbye.reason);
  Free(peer);
  if (peer.role == wire::PeerRole::kActor) {
    context_.tally.Leaves(ActorId(peer.index), goodbye.lost_tokens, goodbye.continued_tokens);
  }
  context_.peers.Remove(peer);
  driver_.NoteWork();
}

void SessionService::OnStranger(PeerTable::Sender sender, const net::PeerAddress& address) {
  if (sender == PeerTable::Sender::kRetired) {
    context_.metrics.Count("frames_retired_incarnation");
    context_.outbox.SendNow(address, wire::Refused{"a newer process has taken this slot"});
  } else {
    context_.metrics.Count("frames_unknown_peer");
    context_.outbox.SendNow(address, wire::Rejoin{});
  }
}

void SessionService::OnOtherVersion(std::uint16_t version) {
  context_.metrics.Count("frames_other_version");
  // Told once each: who speaks it cannot understand us and may try for long.
  if (other_versions_.size() >= kMostVersionsTold || !other_versions_.insert(version).second)
    return;
  context_.events.Add(EventLevel::kWarning, "refused",
                      "a peer speaks protocol version " + std::to_string(version) +
                          "; this broker speaks " + wire::kSpokenVersions.ToString());
}

wire::Shutdown SessionService::ShutdownOf(wire::PeerRole role) const {
  if (role != wire::PeerRole::kLearner) return {shutdown_reason_, shutdown_checkpoint_, {}};
  return {shutdown_reason_, shutdown_checkpoint_, context_.CheckpointsToKeep()};
}

void SessionService::ShutdownAll(const std::string& reason, bool checkpoint_first) {
  shutdown_reason_ = reason;
  shutdown_checkpoint_ = checkpoint_first;
  for (const Peer* peer : context_.peers.All()) {
    context_.outbox.Send(peer->address, ShutdownOf(peer->role));
  }
}

std::size_t SessionService::Remaining() {
  std::size_t remaining = 0;
  for (const Peer* peer : context_.peers.All()) {
    if (peer->role != wire::PeerRole::kTool && context_.Alive(*peer)) ++remaining;
  }
  return remaining;
}

}  // namespace thresher::broker
