#include "broker/weight_service.h"

#include <algorithm>
#include <utility>

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAskAgain{2000};
constexpr milliseconds kWriteAgain{500};
constexpr std::size_t kMostWanted = 1024;                 // chunks; whoever gets none asks again
constexpr const char* kWaitingGauge = "weights_waiting";  // 1 while a version cannot be written

}  // namespace

void WeightService::Acknowledge(PolicyVersion version, bool ok, const std::string& reason) {
  if (!ok) context_.events.Add(EventLevel::kWarning, "publish_refused", reason);
  Peer* learner = context_.peers.Find(wire::PeerRole::kLearner, 0);
  if (learner == nullptr || learner->incarnation != from_) return;
  context_.outbox.Send(learner->address, wire::PublishAck{version, ok, reason});
}

Status WeightService::OnPublish(Peer& peer, const wire::Publish& publish) {
  const wire::WeightsManifest& manifest = publish.manifest;
  const RunState& state = context_.state;
  if (peer.index != 0) {
    context_.metrics.Count("frames_unexpected");
    return Status::Ok();
  }
  from_ = peer.incarnation;
  const wire::VersionPublished* known = state.Published(manifest.version);
  if (known != nullptr) {
    if (known->hash != manifest.hash) {
      return FailedPrecondition("version " + manifest.version.ToString() +
                                " is published again with hash " + manifest.hash.ToString() +
                                ", recorded " + known->hash.ToString());
    }
    Acknowledge(manifest.version, true, "");
    return Status::Ok();
  }
  Status fit =
      CheckManifest(manifest, static_cast<std::size_t>(context_.config.broker.max_message_bytes));
  bool planned = manifest.version.lineage == state.lineage() &&
                 manifest.version.step == state.committed_steps() &&
                 state.plan().IsPublished(manifest.version.step);
  if (!fit.ok() || !planned) {
    Acknowledge(manifest.version, false,
                fit.ok() ? "version " + manifest.version.ToString() + " is not due after " +
                               std::to_string(state.committed_steps()) + " committed steps"
                         : fit.message());
    return Status::Ok();
  }
  bool resent = pull_ != nullptr && pull_->manifest().version == manifest.version &&
                pull_->manifest().hash == manifest.hash;
  if (!resent) {
    pull_ = std::make_unique<WeightPull>(
        manifest, static_cast<std::uint32_t>(context_.config.weights.window), kAskAgain);
  }
  Ask();
  return Status::Ok();
}

void WeightService::Ask() {
  Peer* learner = context_.peers.Find(wire::PeerRole::kLearner, 0);
  if (pull_ == nullptr || learner == nullptr || learner->incarnation != from_) return;
  for (const wire::ChunkGet& get : pull_->Wanted(context_.Now())) {
    context_.outbox.SendNow(learner->address, get);
  }
}

Status WeightService::OnChunk(Peer& peer, const wire::Chunk& chunk) {
  if (pull_ == nullptr || peer.incarnation != from_ || chunk.version != pull_->manifest().version) {
    context_.metrics.Count("chunks_unexpected");
    return Status::Ok();
  }
  Status taken = pull_->Take(chunk);
  if (!taken.ok()) {
    context_.metrics.Count("chunks_damaged");
    context_.events.Add(EventLevel::kWarning, "chunk", taken.ToString());
  }
  Ask();
  return pull_->complete() ? Finish() : Status::Ok();
}

Status WeightService::Finish() {
  PolicyVersion version = pull_->manifest().version;
  Result<std::string> blob = pull_->Blob();
  if (!blob.ok()) {
    Acknowledge(version, false, blob.status().message());
    pull_.reset();
    return Status::Ok();
  }
  Status written = context_.weights.Write(version, *blob);
  if (!written.ok()) {  // kept in memory and tried again
    next_write_ = context_.Now() + kWriteAgain;
    context_.metrics.Set(kWaitingGauge, 1);
    context_.events.Add(EventLevel::kWarning, "weights_not_written", written.ToString());
    return Status::Ok();
  }
  context_.metrics.Set(kWaitingGauge, 0);
  context_.faults->Reached("weights_written");
  THRESHER_RETURN_IF_ERROR(driver_.Record(
      wire::VersionPublished{version, pull_->manifest().hash, pull_->manifest().bytes}));
  pull_.reset();
  context_.metrics.Count("versions_published");
  context_.metrics.Count("weights_bytes_received", static_cast<double>(blob->size()));
  context_.faults->Reached("published");
  Acknowledge(version, true, "");
  THRESHER_ASSIGN_OR_RETURN(wire::WeightsManifest manifest,
                            context_.weights.Manifest(context_.state, version));
  for (const Peer* actor : context_.peers.WithRole(wire::PeerRole::kActor)) {
    context_.outbox.Send(actor->address, wire::Announce{manifest});
  }
  look_for_old_ = true;
  driver_.NoteWork();
  context_.faults->Reached("announced");
  return Status::Ok();
}

void WeightService::OnSeal() {
  if (!std::exchange(look_for_old_, false)) return;
  const bool again = context_.config.journal.off();
  old_ = context_.weights.Old(context_.state, NeededVersions(context_.state, again));
}

void WeightService::OnWritten() { context_.weights.Delete(std::exchange(old_, {})); }

void WeightService::ServeManifest(const net::PeerAddress& peer, const wire::ManifestGet& get) {
  Result<wire::WeightsManifest> manifest = context_.weights.Manifest(context_.state, get.version);
  wire::WeightsManifest none;
  none.version = get.version;
  context_.outbox.Send(peer, manifest.ok() ? *manifest : none);
}

void WeightService::OnChunkGet(const Peer& peer, const wire::ChunkGet& get) {
  if (context_.outgoing.HasRoom(peer.address)) return ServeChunk(peer.address, get);
  const std::pair wanted(peer.address, get);
  if (wanted_.size() >= kMostWanted || std::ranges::find(wanted_, wanted) != wanted_.end()) return;
  wanted_.push_back(wanted);
  context_.metrics.Count("chunks_held_back");
}

void WeightService::ServeChunk(const net::PeerAddress& peer, const wire::ChunkGet& get) {
  Result<wire::Chunk> chunk = context_.weights.ReadChunk(context_.state, get.version, get.index);
  if (!chunk.ok()) return ServeManifest(peer, {get.version});
  context_.metrics.Count("weights_bytes_sent", static_cast<double>(chunk->bytes.size()));
  context_.SendLarge(peer, *std::move(chunk));
}

Status WeightService::Tick() {
  std::erase_if(wanted_, [&](const auto& wanted) {
    const bool room = context_.outgoing.HasRoom(wanted.first);
    if (room) ServeChunk(wanted.first, wanted.second);
    return room;
  });
  if (pull_ == nullptr) return Status::Ok();
  Peer* learner = context_.peers.Find(wire::PeerRole::kLearner, 0);
  if (learner != nullptr && learner->incarnation != from_) {
    pull_.reset();  // its successor publishes again
    context_.metrics.Set(kWaitingGauge, 0);
    return Status::Ok();
  }
  if (pull_->complete()) return context_.Now() >= next_write_ ? Finish() : Status::Ok();
  Ask();
  return Status::Ok();
}

}  // namespace thresher::broker
