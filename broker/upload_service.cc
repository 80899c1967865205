#include "broker/upload_service.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "broker/acceptance.h"

namespace thresher::broker {
namespace {

constexpr double kLoggedRefusals = 100;  // the rest is only counted
constexpr std::uint64_t kForgivenAtOnce = 16u << 20, kForgivenPerSecond = 4u << 20;  // refused

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

}  // namespace

bool UploadService::Admit(Peer& peer, const wire::Upload& upload) {
  context_.Join(peer);
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

bool UploadService::Floods(const net::PeerAddress& address) {
  Peer* peer = context_.peers.At(address);
  if (peer == nullptr || peer->refused_bytes == 0) return false;
  const std::chrono::duration<double> since = context_.Now() - peer->forgiven;
  peer->forgiven = context_.Now();
  const auto forgiven =
      static_cast<std::uint64_t>(std::min(since.count(), 60.0) * kForgivenPerSecond);
  peer->refused_bytes -= std::min(peer->refused_bytes, forgiven);
  return peer->refused_bytes > kForgivenAtOnce;
}

Status UploadService::OnUpload(Peer& peer, const wire::Upload& upload, bool* wanted) {
  context_.admission.NoteHandled(ActorId(peer.index), upload.upload);
  wire::UploadAck ack;
  ack.upload = upload.upload;
  ack.verdicts.reserve(upload.records.size());
  ack.reasons.reserve(upload.records.size());
  const bool off = context_.config.journal.off();
  std::vector<TrajectoryId> ids;  // mode off: of those that are accepted, now or before
  bool prefixes = false;
  for (const SharedBytes& bytes : upload.records) {
    std::string reason;
    Status fatal;
    std::optional<TrajectoryId> id;
    ack.verdicts.push_back(TakeRecord(peer, bytes, &reason, &id, &fatal));
    ack.reasons.push_back(std::move(reason));
    const bool taken = ack.verdicts.back() <= wire::UploadVerdict::kDuplicate;
    prefixes |= taken && !id;
    if (off && taken && id) ids.push_back(*id);
    *wanted |= ack.verdicts.back() == wire::UploadVerdict::kAccepted;
    THRESHER_RETURN_IF_ERROR(fatal);
  }
  context_.metrics.Count("uploads");
  if (off && !prefixes) NoteKept(peer, upload, ids);
  context_.Join(peer);  // it may have been taken for silent while the frame was deferred
  ack.credit = context_.admission.Tell(ActorId(peer.index));
  // Where the actor keeps what it sent, a death of this process takes nothing.
  if (off) {
    context_.outbox.SendNow(peer.address, std::move(ack));
  } else {
    context_.outbox.Send(peer.address, std::move(ack));
  }
  return Status::Ok();
}

void UploadService::TellConsumed() {
  for (auto& [actor, uploads] : context_.kept.TakeNews()) {
    const Peer* peer = context_.peers.Find(wire::PeerRole::kActor, actor.value);
    if (peer != nullptr) context_.outbox.Send(peer->address, wire::Consumed{std::move(uploads)});
  }
}

Status UploadService::OnSampleFailed(Peer& peer, const wire::SampleFailed& failed) {
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

wire::UploadVerdict UploadService::TakeRecord(Peer& peer, const SharedBytes& bytes,
                                              std::string* reason, std::optional<TrajectoryId>* id,
                                              Status* fatal) {
  Result<wire::TrajectoryView> trajectory = wire::TrajectoryView::Open(bytes);
  if (!trajectory.ok()) {
    *reason = trajectory.status().ToString();
    NoteRefusal(peer, bytes.size(), *reason);
    return wire::UploadVerdict::kRefused;
  }
  if (trajectory->fields().finish == FinishReason::kCancelled) {
    return TakePrefix(peer, *trajectory, bytes, reason);
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
      if (context_.config.journal.off()) TakeAgain(**id, bytes, trajectory->Ranges());
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

wire::UploadVerdict UploadService::TakePrefix(Peer& peer, const wire::TrajectoryView& prefix,
                                              const SharedBytes& bytes, std::string* reason) {
  const Trajectory& t = prefix.fields();
  auto refuse = [&] {
    context_.metrics.Count("partials_refused");
    return wire::UploadVerdict::kRefused;
  };
  const Slot* slot = context_.state.groups().FindSlot(t.id);
  if (slot == nullptr || slot->state != Slot::State::kIssued) {
    *reason = t.id.ToString() + ": prefix: nobody needs it any more";
    return refuse();
  }
  *reason = PrefixFault(prefix, context_.state, context_.config, context_.identities,
                        ActorId(peer.index));
  if (!reason->empty()) {
    NoteRefusal(peer, bytes.size(), *reason);
    return refuse();
  }
  const Partials::Prefix what{t.PolicyTokenCount(), t.run_identity};
  if (!context_.partials.Wants(t.id, what)) return wire::UploadVerdict::kDuplicate;
  if (!context_.journal->keeps_partials() || !context_.journal->TakesPrefix(bytes.size())) {
    *reason = t.id.ToString() + ": prefix: " +
              (context_.journal->keeps_partials() ? "the disk is too slow" : "none are kept");
    return refuse();
  }
  context_.journal->Keep(t.id, context_.partials.Put(t.id, what, bytes), bytes);
  context_.metrics.Count("partials_kept");
  return wire::UploadVerdict::kAccepted;
}

void UploadService::TakeAgain(const TrajectoryId& id, const SharedBytes& bytes,
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

void UploadService::NoteKept(const Peer& peer, const wire::Upload& upload,
                             const std::vector<TrajectoryId>& ids) {
  const ActorId actor(peer.index);
  std::vector<TrajectoryId> open;
  std::ranges::copy_if(ids, std::back_inserter(open),
                       [&](const TrajectoryId& id) { return !IsSettled(context_.state, id); });
  context_.kept.Track(actor, upload.upload, open);
}

void UploadService::NoteRefusal(Peer& peer, std::size_t bytes, const std::string& reason) {
  context_.metrics.Count("samples_refused");
  NoteRefused(peer, bytes);
  if (context_.metrics.count("samples_refused") > kLoggedRefusals) return;
  context_.events.Add(EventLevel::kWarning, "sample_refused", peer.Label() + ": " + reason);
}

void UploadService::NoteRefused(Peer& peer, std::size_t bytes) {
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

}  // namespace thresher::broker
