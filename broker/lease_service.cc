#include "broker/lease_service.h"

#include <algorithm>
#include <utility>

#include "broker/partial_log.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPark{1000}, kLongestPark{4000};  // an actor asks again after 5 s
constexpr std::chrono::microseconds kParkMore{300};      // for each that waits: fewer empty answers
constexpr milliseconds kParkWhileSwapping{50};  // its next request will name the new version
constexpr milliseconds kTellAgain{2000};        // of a newer version: the word may have been lost
constexpr milliseconds kRetry{5};               // between looks on behalf of parked requests
constexpr int kWalkShare = 20;                  // times what a look takes, at least

}  // namespace

void LeaseService::OnLeaseRequest(Peer& peer, const wire::LeaseRequest& request) {
  NoteActor(peer, request);
  context_.Join(peer);
  Parked parked;
  parked.request = request;
  parked.incarnation = peer.incarnation;
  bool behind =
      context_.visible_version && (!peer.has_weights || peer.weights != *context_.visible_version);
  const Duration park = std::min<Duration>(kPark + parked_.size() * kParkMore, kLongestPark);
  parked.until = context_.Now() + (behind ? kParkWhileSwapping : park);
  if (auto before = parked_.find(peer.index); before != parked_.end()) Unpark(before);
  if (TryAnswer(peer, parked)) return;
  parked_[peer.index] = parked;
  patience_.emplace(parked.until, peer.index);
}

void LeaseService::OnLeaseRelease(Peer& peer, const wire::LeaseRelease& release) {
  Status released = context_.leases.Release(ActorId(peer.index), release.fence, release.unfinished);
  if (!released.ok()) {
    context_.metrics.Count("stale_fences");
    return;
  }
  context_.metrics.Count("samples_released", static_cast<double>(release.unfinished.size()));
  driver_.NoteWork();
}

Status LeaseService::Tick() {
  THRESHER_RETURN_IF_ERROR(EndExpired());
  prefix_room_ = PrefixRoom();
  AnswerParked();
  return Status::Ok();
}

Status LeaseService::EndExpired() {
  for (const LeaseTable::Expiry& expiry : context_.leases.Expire(context_.ListeningTime())) {
    context_.metrics.Count("leases_expired");
    context_.admission.Suspend(expiry.actor);
    context_.events.Add(EventLevel::kWarning, "lease_expired",
                        "actor " + std::to_string(expiry.actor.value) + " " + expiry.reason +
                            ": item " + std::to_string(expiry.lease.item) + " of " +
                            StreamName(expiry.lease.stream) + ", attempt " +
                            std::to_string(expiry.attempts));
    driver_.NoteWork();
    if (!expiry.give_up) continue;
    for (const TrajectoryId& id : expiry.unfinished) {
      if (context_.lost.contains(id)) continue;
      std::uint32_t step = context_.state.groups().FindGroup(GroupOf(id))->unit.number;
      THRESHER_RETURN_IF_ERROR(driver_.Drop(id, wire::DropReason::kDeadline, step));
    }
  }
  return Status::Ok();
}

void LeaseService::NoteActor(Peer& peer, const wire::LeaseRequest& request) {
  const bool same = peer.has_weights == request.has_weights && peer.weights == request.weights &&
                    peer.capacity >= request.max_samples;
  if (same) return;
  peer.has_weights = request.has_weights;
  peer.weights = request.weights;
  peer.capacity = std::max(peer.capacity, request.max_samples);
  context_.CountActorsAnew();
}

bool LeaseService::TryAnswer(Peer& peer, const Parked& parked) {
  if (context_.state.finished()) {
    wire::LeaseGrant grant;
    grant.request = parked.request.request;
    grant.finished = true;
    context_.outbox.Send(peer.address, std::move(grant));
    return true;
  }
  Selection selection = Select(peer, parked.request.max_samples);
  // What was sent before is not read yet, and more would be held here; or others are to be heard
  // before more is read from the disk.
  const bool room = prefix_room_ > 0 && context_.outgoing.HasRoom(peer.address);
  const bool withheld = !room && AnyPrefix(selection.leases);
  if (withheld) {
    if (context_.Now() < parked.until) return false;
    selection = {};
  } else if (selection.leases.empty()) {
    bool swap = ShouldSwap(peer);
    if (swap) Announce(peer);
    if (!swap && context_.Now() < parked.until) return false;
  }
  if (selection.adopts_version) context_.metrics.Count("versions_adopted");
  Grant(peer, parked.request.request, selection.leases);
  return true;
}

bool LeaseService::ShouldSwap(Peer& peer) {
  if (!context_.visible_version) return false;
  if (peer.has_weights && peer.weights == *context_.visible_version) return false;
  const TimePoint now = context_.Now();
  if (peer.told_at && peer.told_version == *context_.visible_version &&
      now - *peer.told_at < kTellAgain) {
    return false;
  }
  peer.told_version = *context_.visible_version;
  peer.told_at = now;
  return true;
}

Selection LeaseService::Select(const Peer& peer, std::uint32_t most) {
  if (context_.draining || !context_.paused.empty()) return {};
  const ActorView view{ActorId(peer.index), peer.has_weights, peer.weights, peer.capacity};
  if (!context_.lost.empty() && context_.Now() >= context_.regenerate_from) {
    Selection lost = context_.work.SelectLost(context_.state, context_.leases, context_.lost, view,
                                              most, context_.Live());
    if (!lost.leases.empty()) return lost;
  }
  return context_.work.Select(context_.state, context_.leases, view, most, context_.Live());
}

void LeaseService::Announce(const Peer& peer) {
  Result<wire::WeightsManifest> manifest =
      context_.weights.Manifest(context_.state, *context_.visible_version);
  if (manifest.ok()) context_.outbox.Send(peer.address, wire::Announce{*std::move(manifest)});
}

// Prefixes fill half a message at most, or are one; samples that have no room are free.
void LeaseService::Grant(Peer& peer, std::uint64_t request, std::vector<wire::Lease> leases) {
  wire::LeaseGrant grant;
  grant.request = request;
  std::size_t room = PrefixRoom();
  for (wire::Lease& lease : leases) {
    const std::uint32_t wanted = lease.samples;
    AttachPrefixes(lease, &room, &grant.prefixes);
    if (lease.samples > 0) {
      grant.leases.push_back(
          context_.leases.Grant(ActorId(peer.index), lease, context_.ListeningTime()));
      context_.metrics.Count("samples_leased", lease.samples);
    }
    if (lease.samples < wanted) break;
  }
  if (grant.prefixes.empty()) {
    context_.outbox.Send(peer.address, std::move(grant));
  } else {
    context_.SendLarge(peer.address, std::move(grant));
  }
}

std::size_t LeaseService::PrefixRoom() const {
  return static_cast<std::size_t>(context_.config.broker.max_message_bytes) / 2;
}

bool LeaseService::AnyPrefix(const std::vector<wire::Lease>& leases) const {
  if (context_.partials.size() == 0) return false;
  for (const wire::Lease& lease : leases) {
    for (std::uint32_t i = 0; i < lease.samples; ++i) {
      const TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + i};
      if (context_.partials.Find(id) != nullptr) return true;
    }
  }
  return false;
}

void LeaseService::AttachPrefixes(wire::Lease& lease, std::size_t* room,
                                  std::vector<SharedBytes>* prefixes) {
  if (context_.partials.size() == 0) return;
  for (std::uint32_t i = 0; i < lease.samples; ++i) {
    const TrajectoryId id{lease.stream, lease.island, lease.item, lease.first_sample + i};
    const Partials::Kept* kept = context_.partials.Find(id);
    if (kept == nullptr) continue;
    if (kept->bytes > *room && !prefixes->empty()) {
      lease.samples = i;
      return;
    }
    SharedBytes prefix = PrefixOf(id);
    if (prefix.empty()) continue;
    *room -= std::min(*room, prefix.size());
    prefix_room_ -= std::min(prefix_room_, prefix.size());
    prefixes->push_back(std::move(prefix));
    context_.metrics.Count("partials_granted");
  }
}

SharedBytes LeaseService::PrefixOf(const TrajectoryId& id) {
  const Partials::Kept& kept = *context_.partials.Find(id);
  if (!kept.unwritten.empty()) return kept.unwritten;  // the grant waits until it is written
  Result<std::string> bytes = ReadPartial(context_.run, kept.place);
  if (bytes.ok()) return SharedBytes(*std::move(bytes));
  context_.tally.Add(kept.tokens);
  context_.LosePartial(id, bytes.status());
  return {};
}

LeaseService::ParkedMap::iterator LeaseService::Unpark(ParkedMap::iterator parked) {
  patience_.erase({parked->second.until, parked->first});
  return parked_.erase(parked);
}

bool LeaseService::Look(const ParkedMap::value_type& parked) {
  Peer* peer = context_.peers.Find(wire::PeerRole::kActor, parked.first);
  return peer == nullptr || peer->incarnation != parked.second.incarnation ||
         TryAnswer(*peer, parked.second);
}

// Of thousands that wait only those are looked at whose patience ends, unless there is something to
// tell them all, or to give.
void LeaseService::AnswerParked() {
  const TimePoint now = context_.Now();
  while (!patience_.empty() && patience_.begin()->first <= now) {
    const auto parked = parked_.find(patience_.begin()->second);
    Look(*parked);  // with whatever there is
    Unpark(parked);
  }
  const bool all =
      context_.state.finished() ||
      std::exchange(seen_version_, context_.visible_version) != context_.visible_version;
  const bool news =
      std::exchange(seen_generation_, driver_.work_generation()) != driver_.work_generation();
  if (all || ((news || now >= next_walk_) && SamplesFree())) WalkParked(all);
}

// Begins behind the one that was served last, ends where nothing is left.
void LeaseService::WalkParked(bool all) {
  const TimePoint begun = context_.Now();
  auto parked = parked_.lower_bound(walk_from_);
  for (std::size_t left = parked_.size(); left > 0; --left) {
    if (parked == parked_.end()) parked = parked_.begin();
    if (!Look(*parked)) {
      ++parked;
      continue;
    }
    walk_from_ = parked->first + 1;
    parked = Unpark(parked);
    if (!all && !SamplesFree()) break;
  }
  const TimePoint now = context_.Now();
  next_walk_ = now + std::max<Duration>(kRetry, kWalkShare * (now - begun));
}

// Whether a sample is issued that nobody has leased.
bool LeaseService::SamplesFree() const {
  std::uint64_t outstanding = context_.lost.size();
  for (const auto& [key, unit] : context_.state.groups().units()) outstanding += unit.outstanding;
  return outstanding > context_.leases.leased_samples();
}

}  // namespace thresher::broker
