#include "broker/actor_service.h"

#include <algorithm>
#include <utility>

#include "broker/acceptance.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPark{1000}, kLongestPark{4000};  // an actor asks again after 5 s
constexpr std::chrono::microseconds kParkMore{300};      // for each that waits: fewer empty answers
constexpr milliseconds kParkWhileSwapping{50};  // its next request will name the new version
constexpr milliseconds kTellAgain{2000};        // of a newer version: the word may have been lost
constexpr milliseconds kRetry{5};               // between looks on behalf of parked requests
constexpr int kWalkShare = 20;                  // times what a look takes, at least
constexpr milliseconds kAccountLook{500};
constexpr double kLoggedRefusals = 100;  // the rest is only counted
constexpr std::uint64_t kForgivenAtOnce = 16u << 20, kForgivenPerSecond = 4u << 20;  // refused
constexpr std::size_t kMostCounters = 64;      // of a peer: ours have 20 at most
constexpr std::size_t kMostCounterBytes = 64;  // of a counter's name

}  // namespace

void ActorService::OnLeaseRequest(Peer& peer, const wire::LeaseRequest& request) {
  NoteActor(peer, request);
  Join(peer);
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

void ActorService::Join(const Peer& peer) {
  const ActorId actor(peer.index);
  if (!context_.admission.Joined(actor)) context_.admission.Join(actor);
  context_.admission.Resume(actor);
}

bool ActorService::Admit(Peer& peer, const wire::Upload& upload) {
  Join(peer);
  const ActorId actor(peer.index);
  std::uint64_t bytes = 0;
  for (const auto& record : upload.records) bytes += record.size();
  switch (context_.admission.Take(actor, upload.upload, bytes)) {
    case Admission::Verdict::kTaken:
      return true;
    case Admission::Verdict::kRepeated:  // the answer to the first one is to come
      context_.metrics.Count("uploads_repeated");
      return false;
    case Admission::Verdict::kRefused:
      break;
  }
  context_.metrics.Count("uploads_over_credit");
  NoteRefused(peer, bytes);
  if (context_.admission.accounts().at(actor).refused == 1 &&
      context_.metrics.count("uploads_over_credit") <= kLoggedRefusals) {
    context_.events.Add(EventLevel::kWarning, "over_credit",
                        peer.Label() + ": an upload of " + std::to_string(bytes) + " bytes");
  }
  wire::UploadAck ack;
  ack.upload = upload.upload;
  ack.credit = context_.admission.Tell(actor);
  context_.outbox.SendNow(peer.address, std::move(ack));
  return false;
}

void ActorService::NoteActor(Peer& peer, const wire::LeaseRequest& request) {
  const bool same = peer.has_weights == request.has_weights && peer.weights == request.weights &&
                    peer.capacity >= request.max_samples;
  if (same) return;
  peer.has_weights = request.has_weights;
  peer.weights = request.weights;
  peer.capacity = std::max(peer.capacity, request.max_samples);
  context_.CountActorsAnew();
}

bool ActorService::ShouldSwap(const Peer& peer) {
  if (!context_.visible_version) return false;
  if (peer.has_weights && peer.weights == *context_.visible_version) return false;
  const TimePoint now = context_.Now();
  auto [told, first] = told_to_swap_.try_emplace(peer.index);
  if (!first && told->second.version == *context_.visible_version &&
      now - told->second.at < kTellAgain) {
    return false;
  }
  told->second = {*context_.visible_version, now};
  return true;
}

bool ActorService::TryAnswer(Peer& peer, const Parked& parked) {
  TimePoint now = context_.Now();
  if (context_.state.finished()) {
    wire::LeaseGrant grant;
    grant.request = parked.request.request;
    grant.finished = true;
    context_.outbox.Send(peer.address, std::move(grant));
    return true;
  }
  Selection selection;
  if (!context_.draining && context_.paused.empty()) {
    ActorView view{ActorId(peer.index), peer.has_weights, peer.weights, peer.capacity};
    const std::uint32_t most = parked.request.max_samples;
    if (!context_.lost.empty() && now >= context_.regenerate_from) {
      selection = context_.work.SelectLost(context_.state, context_.leases, context_.lost, view,
                                           most, context_.Live());
    }
    if (selection.leases.empty()) {
      selection =
          context_.work.Select(context_.state, context_.leases, view, most, context_.Live());
    }
  }
  if (selection.leases.empty()) {
    bool swap = ShouldSwap(peer);
    if (swap) Announce(peer);
    if (!swap && now < parked.until) return false;
  }
  if (selection.adopts_version) context_.metrics.Count("versions_adopted");
  Grant(peer, parked.request.request, selection.leases);
  return true;
}

void ActorService::Announce(const Peer& peer) {
  Result<wire::WeightsManifest> manifest =
      context_.weights.Manifest(context_.state, *context_.visible_version);
  if (manifest.ok()) context_.outbox.Send(peer.address, wire::Announce{*std::move(manifest)});
}

void ActorService::Grant(Peer& peer, std::uint64_t request,
                         const std::vector<wire::Lease>& leases) {
  wire::LeaseGrant grant;
  grant.request = request;
  for (const wire::Lease& lease : leases) {
    grant.leases.push_back(
        context_.leases.Grant(ActorId(peer.index), lease, context_.ListeningTime()));
    context_.metrics.Count("samples_leased", lease.samples);
  }
  context_.outbox.Send(peer.address, std::move(grant));
}

void ActorService::OnLeaseRelease(Peer& peer, const wire::LeaseRelease& release) {
  Status released = context_.leases.Release(ActorId(peer.index), release.fence, release.unfinished);
  if (!released.ok()) {
    context_.metrics.Count("stale_fences");
    return;
  }
  context_.metrics.Count("samples_released", static_cast<double>(release.unfinished.size()));
  driver_.NoteWork();
}

void ActorService::NoteRefused(Peer& peer, std::size_t bytes) {
  const bool flooded = peer.refused_bytes > kForgivenAtOnce;
  if (peer.refused_bytes == 0) peer.forgiven = context_.Now();
  peer.refused_bytes += bytes;
  if (flooded || peer.refused_bytes <= kForgivenAtOnce) return;
  context_.metrics.Count("floods");
  if (context_.metrics.count("floods") > kLoggedRefusals) return;
  context_.events.Add(EventLevel::kWarning, "flood",
                      peer.Label() + " keeps sending what is refused: large frames of it are not " +
                          "looked at for a while");
}

bool ActorService::Floods(const net::PeerAddress& address) {
  Peer* peer = context_.peers.At(address);
  if (peer == nullptr || peer->refused_bytes == 0) return false;
  const std::chrono::duration<double> since = context_.Now() - peer->forgiven;
  peer->forgiven = context_.Now();
  const auto forgiven =
      static_cast<std::uint64_t>(std::min(since.count(), 60.0) * kForgivenPerSecond);
  peer->refused_bytes -= std::min(peer->refused_bytes, forgiven);
  return peer->refused_bytes > kForgivenAtOnce;
}

void ActorService::NoteRefusal(Peer& peer, std::size_t bytes, const std::string& reason) {
  context_.metrics.Count("samples_refused");
  NoteRefused(peer, bytes);
  if (context_.metrics.count("samples_refused") > kLoggedRefusals) return;
  context_.events.Add(EventLevel::kWarning, "sample_refused", peer.Label() + ": " + reason);
}

// Whether the bytes of an accepted training sample may still be asked for.
bool MayBeServed(const RunState& state, const TrajectoryId& id) {
  const std::optional<std::uint32_t> step = state.plan().StepOfItem(id.stream, id.item);
  if (!step || *step < state.durable_steps()) return false;
  const wire::BatchComposed* batch = state.Batch(*step);
  if (batch != nullptr) return std::ranges::find(batch->ids, id) != batch->ids.end();
  const Slot* slot = state.groups().FindSlot(id);
  return slot != nullptr && slot->state == Slot::State::kAccepted;
}

// Whether nothing will be asked of the sample any more (KeptUploads).
bool IsSettled(const RunState& state, const TrajectoryId& id) {
  if (state.dedup().Forgotten(id)) return true;
  if (const Slot* slot = state.groups().FindSlot(id)) return slot->state == Slot::State::kDropped;
  const std::optional<std::uint32_t> step = state.plan().StepOfItem(id.stream, id.item);
  return !step || *step < state.durable_steps();  // no step: of a round that is evaluated
}

void ActorService::TakeAgain(const TrajectoryId& id, const SharedBytes& bytes,
                             const ArrayRanges& arrays) {
  const bool lost = context_.lost.erase(id) > 0;
  if (!lost && !MayBeServed(context_.state, id)) return;
  if (lost) {
    context_.leases.Complete(id);
    context_.journal->Store({id, context_.state.dedup().Find(id)->content_hash, bytes, arrays});
    context_.metrics.Count("samples_found_again");
  }
  if (!context_.payloads.Has(id)) context_.payloads.Put(id, bytes);
}

void ActorService::NoteKept(const Peer& peer, const wire::Upload& upload,
                            const std::vector<TrajectoryId>& ids) {
  const ActorId actor(peer.index);
  std::vector<TrajectoryId> open;
  std::ranges::copy_if(ids, std::back_inserter(open),
                       [&](const TrajectoryId& id) { return !IsSettled(context_.state, id); });
  context_.kept.Track(actor, upload.upload, open);
}

wire::UploadVerdict ActorService::TakeRecord(Peer& peer, const SharedBytes& bytes,
                                             std::string* reason, TrajectoryId* id, Status* fatal) {
  Result<wire::TrajectoryView> trajectory = wire::TrajectoryView::Open(bytes);
  if (!trajectory.ok()) {
    *reason = trajectory.status().ToString();
    NoteRefusal(peer, bytes.size(), *reason);
    return wire::UploadVerdict::kRefused;
  }
  Judgement judgement = JudgeUpload(*trajectory, context_.state, context_.config,
                                    context_.identities, ActorId(peer.index));
  *reason = judgement.reason;
  *id = trajectory->fields().id;
  switch (judgement.verdict) {
    case wire::UploadVerdict::kAccepted:
      *fatal =
          driver_.Accept(judgement.record, bytes, /*already_stored=*/false, trajectory->Ranges());
      if (trajectory->fields().finish != FinishReason::kReference) {
        const std::uint32_t tokens = trajectory->fields().PolicyTokenCount();
        context_.metrics.generated().Add(tokens, context_.Now());
        context_.metrics.Count("tokens_generated", tokens);
      }
      context_.metrics.Count("bytes_accepted", static_cast<double>(bytes.size()));
      break;
    case wire::UploadVerdict::kDuplicate:
      context_.metrics.Count("samples_duplicate");
      if (context_.config.journal.off()) TakeAgain(*id, bytes, trajectory->Ranges());
      break;
    case wire::UploadVerdict::kConflict:
      context_.metrics.Count("samples_conflict");
      context_.events.Add(EventLevel::kAlarm, "conflict",
                          "two unequal copies of " + trajectory->fields().id.ToString() +
                              ": actor " + std::to_string(judgement.first->actor) +
                              " (kept) and actor " + std::to_string(peer.index));
      break;
    case wire::UploadVerdict::kRefused:
      NoteRefusal(peer, bytes.size(), judgement.reason);
      break;
  }
  return judgement.verdict;
}

Status ActorService::OnUpload(Peer& peer, const wire::Upload& upload, bool* wanted) {
  context_.admission.NoteHandled(ActorId(peer.index), upload.upload);
  wire::UploadAck ack;
  ack.upload = upload.upload;
  std::vector<TrajectoryId> ids;  // of those that are accepted, now or before
  for (const SharedBytes& bytes : upload.records) {
    std::string reason;
    Status fatal;
    TrajectoryId id;
    ack.verdicts.push_back(TakeRecord(peer, bytes, &reason, &id, &fatal));
    ack.reasons.push_back(std::move(reason));
    if (ack.verdicts.back() <= wire::UploadVerdict::kDuplicate) ids.push_back(id);
    *wanted |= ack.verdicts.back() == wire::UploadVerdict::kAccepted;
    THRESHER_RETURN_IF_ERROR(fatal);
  }
  context_.metrics.Count("uploads");
  const bool off = context_.config.journal.off();
  if (off) NoteKept(peer, upload, ids);
  Join(peer);  // it may have been taken for silent while the frame was deferred
  ack.credit = context_.admission.Tell(ActorId(peer.index));
  // Where the actor keeps what it sent, a death of this process takes nothing.
  if (off) {
    context_.outbox.SendNow(peer.address, std::move(ack));
  } else {
    context_.outbox.Send(peer.address, std::move(ack));
  }
  return Status::Ok();
}

void ActorService::TellConsumed() {
  for (auto& [actor, uploads] : context_.kept.TakeNews()) {
    const Peer* peer = context_.peers.Find(wire::PeerRole::kActor, actor.value);
    if (peer != nullptr) context_.outbox.Send(peer->address, wire::Consumed{std::move(uploads)});
  }
}

Status ActorService::OnSampleFailed(Peer& peer, const wire::SampleFailed& failed) {
  const Slot* slot = context_.state.groups().FindSlot(failed.id);
  if (context_.lost.contains(failed.id)) {  // it was accepted: somebody else generates it again
    if (context_.leases.Release(ActorId(peer.index), failed.fence, {failed.id}).ok()) {
      driver_.NoteWork();
    }
    return Status::Ok();
  }
  bool open = slot != nullptr && slot->state == Slot::State::kIssued;
  if (!open || !context_.leases.Holds(ActorId(peer.index), failed.fence, failed.id)) {
    context_.metrics.Count("stale_fences");
    return Status::Ok();
  }
  Result<wire::DropReason> reason = wire::ParseDropReason(failed.reason);
  if (!reason.ok()) {
    NoteRefusal(peer, 0, failed.id.ToString() + ": unknown drop reason '" + failed.reason + "'");
    return Status::Ok();
  }
  context_.events.Add(
      EventLevel::kWarning, "sample_failed",
      peer.Label() + ": " + failed.id.ToString() + ": " + failed.reason + ": " + failed.detail);
  std::uint32_t step = context_.state.groups().FindGroup(GroupOf(failed.id))->unit.number;
  return driver_.Drop(failed.id, *reason, step);
}

void ActorService::NoteCounters(Peer& peer, const wire::Heartbeat& heartbeat) {
  for (const auto& [name, value] : heartbeat.counters) {
    const bool known = peer.counters.contains(name);
    if (!known && (peer.counters.size() >= kMostCounters || name.size() > kMostCounterBytes)) {
      context_.metrics.Count("peer_counters_not_kept");
      continue;
    }
    peer.counters[name] = value;
  }
}

void ActorService::OnHeartbeat(Peer& peer, const wire::Heartbeat& heartbeat) {
  peer.progress = heartbeat.progress;
  if (peer.has_weights != heartbeat.has_weights || peer.weights != heartbeat.weights) {
    context_.CountActorsAnew();
  }
  peer.has_weights = heartbeat.has_weights;
  peer.weights = heartbeat.weights;
  NoteCounters(peer, heartbeat);
  bool other_hash = heartbeat.has_weights && heartbeat.weights_hash != peer.weights_hash;
  peer.weights_hash = heartbeat.weights_hash;
  if (other_hash) {
    const wire::VersionPublished* published = context_.state.Published(heartbeat.weights);
    if (published != nullptr && published->hash != heartbeat.weights_hash) {
      context_.metrics.Count("weights_hash_mismatches");
      context_.events.Add(EventLevel::kAlarm, "weights_hash",
                          peer.Label() + " holds version " + heartbeat.weights.ToString() +
                              " with hash " + heartbeat.weights_hash.ToString() +
                              ", published as " + published->hash.ToString());
    }
  }
  if (peer.role == wire::PeerRole::kActor) {
    std::size_t unknown =
        context_.leases.Heartbeat(ActorId(peer.index), heartbeat, context_.ListeningTime());
    context_.metrics.Count("stale_fences", static_cast<double>(unknown));
  }
  wire::HeartbeatAck ack;
  ack.has_weights = context_.visible_version.has_value();
  ack.newest = context_.visible_version.value_or(PolicyVersion{});
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

void ActorService::CloseSilentAccounts() {
  if (context_.Now() < next_account_look_) return;
  next_account_look_ = context_.Now() + kAccountLook;
  std::vector<ActorId> silent;
  for (const auto& [actor, account] : context_.admission.accounts()) {
    const Peer* peer = context_.peers.Find(wire::PeerRole::kActor, actor.value);
    if (peer == nullptr || !context_.Alive(*peer)) silent.push_back(actor);
  }
  for (ActorId actor : silent) context_.admission.Leave(actor);
}

Status ActorService::Tick() {
  CloseSilentAccounts();
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
  AnswerParked();
  TellConsumed();
  return Status::Ok();
}

ActorService::ParkedMap::iterator ActorService::Unpark(ParkedMap::iterator parked) {
  patience_.erase({parked->second.until, parked->first});
  return parked_.erase(parked);
}

bool ActorService::Look(const ParkedMap::value_type& parked) {
  Peer* peer = context_.peers.Find(wire::PeerRole::kActor, parked.first);
  return peer == nullptr || peer->incarnation != parked.second.incarnation ||
         TryAnswer(*peer, parked.second);
}

// Of thousands that wait only those are looked at whose patience ends, unless there is something to
// tell them all, or to give.
void ActorService::AnswerParked() {
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
void ActorService::WalkParked(bool all) {
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
bool ActorService::SamplesFree() const {
  std::uint64_t outstanding = context_.lost.size();
  for (const auto& [key, unit] : context_.state.groups().units()) outstanding += unit.outstanding;
  return outstanding > context_.leases.leased_samples();
}

}  // namespace thresher::broker
