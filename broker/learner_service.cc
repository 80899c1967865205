#include "broker/learner_service.h"

#include <algorithm>

#include "broker/batcher.h"
#include "broker/metrics_report.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kWaitForBatch{200};
constexpr std::chrono::seconds kRankPatience{30};  // with a rank that others of its job wait for
constexpr std::chrono::seconds kForgottenPatience{2};  // with frames that a network held back
constexpr std::size_t kFrameRoom = 32u << 10;          // envelope and fields beside the records
constexpr std::size_t kRecordRoom = 16;                // framing of one record inside a part
constexpr std::size_t kMostCuts = 256;                 // remembered

}  // namespace

Status LearnerService::OnFetchLeaf(Peer& peer, const wire::FetchLeaf& fetch) {
  std::uint32_t leaves = static_cast<std::uint32_t>(context_.config.learner.grad_leaves);
  if (fetch.lineage != context_.state.lineage() || fetch.leaf >= leaves ||
      fetch.step >= context_.state.plan().total_steps()) {
    context_.metrics.Count("frames_unexpected");
    context_.outbox.SendNow(peer.address, wire::NotReady{fetch.request});
    return Status::Ok();
  }
  if (fetch.step < context_.state.remembered_from()) {
    AnswerForgotten(peer, fetch);
    return Status::Ok();
  }
  forgotten_.erase(peer.index);
  if (fetch.step >= context_.state.durable_steps()) behind_.erase(peer.index);
  if (context_.state.Batch(fetch.step) != nullptr) {
    THRESHER_ASSIGN_OR_RETURN(const bool served, Serve(peer, fetch));
    if (served) return Status::Ok();
  }
  // One wait per rank: a new request of a rank replaces the one it gave up.
  std::erase_if(waiting_, [&](const Waiting& w) {
    return w.rank == peer.index && w.fetch.leaf == fetch.leaf && w.fetch.part == fetch.part;
  });
  waiting_.push_back({peer.index, peer.incarnation, fetch, context_.Now() + kWaitForBatch});
  return Status::Ok();
}

// A frame that was on its way for long asks once; a rank that was started from an old checkpoint
// asks again and again.
void LearnerService::AnswerForgotten(const Peer& peer, const wire::FetchLeaf& fetch) {
  const TimePoint since = forgotten_.try_emplace(peer.index, context_.Now()).first->second;
  if (context_.Now() - since < kForgottenPatience) {
    context_.outbox.SendNow(peer.address, wire::NotReady{fetch.request});
    return;
  }
  forgotten_.erase(peer.index);
  const std::string reason =
      "the batch of step " + std::to_string(fetch.step) + " is forgotten: checkpoints of " +
      std::to_string(context_.state.remembered_from()) + " steps and more can go on";
  context_.events.Add(EventLevel::kWarning, "refused", peer.Label() + ": " + reason);
  context_.outbox.SendNow(peer.address, wire::Refused{reason});
}

std::vector<TrajectoryId> LearnerService::LeafIds(const wire::FetchLeaf& fetch) const {
  return LeafOf(context_.state.Batch(fetch.step)->ids, context_.state.plan().Step(fetch.step),
                static_cast<std::uint32_t>(context_.config.learner.grad_leaves), fetch.leaf);
}

bool LearnerService::Lacks(const wire::FetchLeaf& fetch) const {
  if (context_.lost.empty()) return false;
  return std::ranges::any_of(LeafIds(fetch),
                             [&](const TrajectoryId& id) { return context_.lost.contains(id); });
}

bool LearnerService::IsMeant(const Peer& peer, const wire::FetchLeaf& fetch) {
  if (fetch.step >= context_.state.durable_steps()) return true;
  const TimePoint since = behind_.try_emplace(peer.index, context_.Now()).first->second;
  return context_.Now() - since >= kForgottenPatience;
}

void LearnerService::NoteLost(const wire::FetchLeaf& fetch) {
  const std::size_t before = context_.lost.size();
  for (const TrajectoryId& id : LeafIds(fetch)) {
    const bool here =
        context_.payloads.Get(std::span(&id, 1)).status().code() != StatusCode::kNotFound;
    if (here || !context_.lost.insert(id).second) continue;
    context_.metrics.Count("samples_lost");
    driver_.NoteWork();
  }
  if (context_.lost.size() == before) return;
  context_.events.Add(EventLevel::kWarning, "bytes_lost",
                      std::to_string(context_.lost.size() - before) + " samples of step " +
                          std::to_string(fetch.step) +
                          " are asked for and were not stored (journal.mode off)");
}

// A leaf is asked for part after part.
Result<const LearnerService::LeafCut*> LearnerService::CutOf(const wire::FetchLeaf& fetch) {
  if (cuts_.size() >= kMostCuts) cuts_.clear();
  auto found = cuts_.find({fetch.step, fetch.leaf});
  if (found != cuts_.end()) return &found->second;
  LeafCut cut;
  cut.ids = LeafIds(fetch);
  THRESHER_ASSIGN_OR_RETURN(std::vector<std::size_t> sizes, context_.payloads.Sizes(cut.ids));
  for (std::size_t& size : sizes) size += kRecordRoom;
  const auto limit = static_cast<std::size_t>(context_.config.broker.max_message_bytes);
  cut.parts = CutParts(sizes, limit > kFrameRoom ? limit - kFrameRoom : limit);
  return &(cuts_[{fetch.step, fetch.leaf}] = std::move(cut));
}

// The records of a part; a part behind the last has none.
Result<std::vector<SharedBytes>> LearnerService::RecordsOf(const LeafCut& cut, std::uint32_t part) {
  if (part >= cut.parts.size()) return std::vector<SharedBytes>{};
  const std::size_t begin = cut.parts[part];
  const std::size_t end = part + 1 < cut.parts.size() ? cut.parts[part + 1] : cut.ids.size();
  return context_.payloads.Get(std::span(cut.ids).subspan(begin, end - begin));
}

Result<bool> LearnerService::Serve(const Peer& peer, const wire::FetchLeaf& fetch) {
  const wire::BatchComposed& batch = *context_.state.Batch(fetch.step);
  if (Lacks(fetch)) return false;
  if (!context_.outgoing.HasRoom(peer.address)) return false;
  const Result<const LeafCut*> found = CutOf(fetch);
  Result<std::vector<SharedBytes>> records = found.ok()
                                                 ? RecordsOf(**found, fetch.part)
                                                 : Result<std::vector<SharedBytes>>(found.status());
  const bool missing = records.status().code() == StatusCode::kNotFound;
  if (missing && context_.config.journal.off()) {
    if (IsMeant(peer, fetch)) NoteLost(fetch);
    return false;
  }
  if (missing && context_.journal->dirty()) return false;
  if (!records.ok()) return records.status();
  const LeafCut* cut = *found;
  wire::LeafPart reply;
  reply.request = fetch.request;
  reply.lineage = fetch.lineage;
  reply.step = fetch.step;
  reply.leaf = fetch.leaf;
  reply.part = fetch.part;
  reply.parts = static_cast<std::uint32_t>(cut->parts.size());
  reply.batch_digest = batch.digest;
  reply.batch_trajectories = batch.ids.size();
  reply.batch_loss_tokens = batch.loss_tokens;
  reply.records = *std::move(records);
  context_.metrics.Count("leaf_parts_served");
  context_.SendLarge(peer.address, std::move(reply));
  return true;
}

void LearnerService::OnRanksMeet(Peer& peer, const wire::RanksMeet& meet) {
  Result<const RankMeeting::Members*> come = meeting_.Come(
      meet.job, meet.world, peer.index, {peer.incarnation, meet.hello, context_.Now()});
  if (!come.ok()) {
    context_.events.Add(EventLevel::kWarning, "refused",
                        peer.Label() + ": " + come.status().message());
    context_.outbox.SendNow(peer.address, wire::Refused{come.status().message()});
    return;
  }
  if (*come == nullptr) return;
  wire::RanksMet met;
  met.job = meet.job;
  for (const auto& [rank, member] : **come) met.hellos.push_back(member.hello);
  for (const auto& [rank, member] : **come) {
    const Peer* other = context_.peers.Find(wire::PeerRole::kLearner, rank);
    if (other != nullptr && other->incarnation == member.incarnation) {
      context_.outbox.SendNow(other->address, met);
    }
  }
}

Status LearnerService::Tick() {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Peer* peer = context_.peers.Find(wire::PeerRole::kLearner, it->rank);
    if (peer == nullptr || peer->incarnation != it->incarnation) {
      it = waiting_.erase(it);
      continue;
    }
    bool served = false;
    if (context_.state.Batch(it->fetch.step) != nullptr) {
      THRESHER_ASSIGN_OR_RETURN(served, Serve(*peer, it->fetch));
    }
    if (served) {
      it = waiting_.erase(it);
    } else if (context_.Now() >= it->until) {
      const std::string lost = LostRank(*peer);
      if (lost.empty()) {
        context_.outbox.SendNow(peer->address, wire::NotReady{it->fetch.request});
      } else {
        context_.events.Add(EventLevel::kWarning, "rank_lost",
                            peer->Label() + " waits, and " + lost);
        context_.outbox.SendNow(peer->address, wire::Refused{lost});
      }
      it = waiting_.erase(it);
    } else {
      ++it;
    }
  }
  return Status::Ok();
}

std::string LearnerService::LostRank(const Peer& peer) const {
  for (std::uint32_t rank = 0; rank < peer.world; ++rank) {
    const Peer* other = context_.peers.Find(wire::PeerRole::kLearner, rank);
    const TimePoint heard = other == nullptr ? begun_ : other->last_seen;
    const auto silent =
        std::chrono::duration_cast<std::chrono::seconds>(context_.ListeningTime() - heard);
    if (silent <= kRankPatience) continue;
    return "learner rank " + std::to_string(rank) + " has been silent for " +
           std::to_string(silent.count()) + " s";
  }
  return "";
}

Status LearnerService::CheckAgainstBatch(const wire::StepDone& done) const {
  std::string step = "step " + std::to_string(done.step);
  const wire::BatchComposed* batch = context_.state.Batch(done.step);
  if (batch->digest != done.batch_digest) {
    return FailedPrecondition(step + " was trained on batch " + done.batch_digest.ToString() +
                              ", composed as " + batch->digest.ToString());
  }
  Hash128 chain = wire::HashChain(context_.state.ChainBefore(done.step), batch->digest);
  if (chain != done.chain) {
    return FailedPrecondition(step + " has chain " + done.chain.ToString() + ", expected " +
                              chain.ToString() + ": other batches were trained before it");
  }
  const wire::StepCommitted* first = context_.state.Commit(done.step);
  if (first != nullptr && first->state_hash != done.state_hash) {
    return FailedPrecondition("retrained " + step + " reached state " + done.state_hash.ToString() +
                              ", recorded " + first->state_hash.ToString());
  }
  return Status::Ok();
}

Status LearnerService::OnStepDone(Peer& peer, const wire::StepDone& done) {
  const bool forgotten = done.step < context_.state.remembered_from();
  if (peer.index == 0 && done.lineage == context_.state.lineage() && forgotten) {
    context_.outbox.Send(peer.address, wire::StepAck{done.step});  // a resend
    return Status::Ok();
  }
  bool in_order =
      done.step <= context_.state.committed_steps() && context_.state.Batch(done.step) != nullptr;
  if (peer.index != 0 || done.lineage != context_.state.lineage() || !in_order) {
    context_.metrics.Count("frames_unexpected");
    context_.events.Add(EventLevel::kWarning, "unexpected",
                        peer.Label() + " reports step " + std::to_string(done.step) + " when " +
                            std::to_string(context_.state.committed_steps()) + " are committed");
    return Status::Ok();
  }
  THRESHER_RETURN_IF_ERROR(CheckAgainstBatch(done));
  if (reporter_ != peer.incarnation) {
    reporter_ = peer.incarnation;
    next_report_ = 0;
  }
  if (done.step >= next_report_) {
    next_report_ = done.step + 1;
    THRESHER_RETURN_IF_ERROR(Commit(done));
  }
  context_.outbox.Send(peer.address, wire::StepAck{done.step});
  return Status::Ok();
}

Status LearnerService::Commit(const wire::StepDone& done) {
  bool retrained = done.step < context_.state.committed_steps();
  const StepFigures figures =
      FiguresOf(context_.state.groups(), context_.state.plan().Step(done.step));
  THRESHER_RETURN_IF_ERROR(driver_.Record(wire::StepCommitted{
      done.lineage, done.step, done.batch_digest, done.chain, done.state_hash, done.trained_tokens,
      done.audited_tokens, done.mismatched_tokens, retrained}));
  NoteMismatches(done);
  if (retrained) {
    context_.events.Add(EventLevel::kInfo, "retrained",
                        "step " + std::to_string(done.step) + " again, same state");
    return Status::Ok();
  }
  TimePoint now = context_.Now();
  context_.metrics.trained().Add(static_cast<double>(done.trained_tokens), now);
  context_.metrics.steps().Add(1, now);
  context_.metrics.Count("steps_committed");
  for (const TrajectoryId& id : context_.state.Batch(done.step)->ids) context_.payloads.Spend(id);
  context_.faults->Reached("committed");
  context_.metrics_log.Add(StepLine(context_, done, figures));
  return context_.state.ledger().Check(context_.state.groups().CountHeld());
}

void LearnerService::NoteMismatches(const wire::StepDone& done) {
  last_metrics_ = {done.metrics.begin(), done.metrics.end()};
  if (done.mismatched_tokens == 0) return;
  std::string actors;
  for (const auto& [actor, tokens] : done.mismatches_by_actor) {
    actors += (actors.empty() ? "" : ", ") + std::string("actor ") + std::to_string(actor) + ": " +
              std::to_string(tokens);
    context_.metrics.Count("mismatched_tokens_actor_" + std::to_string(actor),
                           static_cast<double>(tokens));
  }
  context_.events.Add(EventLevel::kAlarm, "mismatch",
                      "step " + std::to_string(done.step) + ": " +
                          std::to_string(done.mismatched_tokens) + " of " +
                          std::to_string(done.audited_tokens) +
                          " recorded logprobs differ from the learner's (" + actors + ")");
}

Status LearnerService::OnCheckpointDone(Peer& peer, const wire::CheckpointDone& done) {
  const RunState& state = context_.state;
  if (peer.index != 0 || done.lineage != state.lineage() || done.step > state.committed_steps()) {
    context_.metrics.Count("frames_unexpected");
    return Status::Ok();
  }
  if (done.step < state.remembered_from()) {  // a resend; newer ones are durable
    context_.outbox.Send(peer.address, wire::CheckpointAck{done.step, context_.CheckpointsToKeep()});
    return Status::Ok();
  }
  if (done.chain != state.ChainBefore(done.step)) {
    return FailedPrecondition("checkpoint " + done.folder + " contains other batches than the " +
                              std::to_string(done.step) + " committed steps");
  }
  // An older one: a copy that comes late, or a learner that fell back behind a damaged one.
  const wire::StepsDurable& last = state.last_durable();
  const bool known = done.step < last.step ||
                     (done.step == last.step && last.manifest_hash == done.manifest_hash &&
                      last.folder == done.folder);
  if (!known) {
    for (std::uint32_t step = state.remembered_from(); step < done.step; ++step) {
      for (const TrajectoryId& id : state.Batch(step)->ids) context_.payloads.Release(id);
    }
    THRESHER_RETURN_IF_ERROR(driver_.Record(
        wire::StepsDurable{done.lineage, done.step, done.folder, done.manifest_hash, done.chain}));
    auto contained = [&](const TrajectoryId& id) {
      const std::optional<std::uint32_t> step = state.plan().StepOfItem(id.stream, id.item);
      return step && *step < done.step;
    };
    context_.kept.SettleIf(contained);
    std::erase_if(context_.lost, contained);
    context_.events.Add(EventLevel::kInfo, "durable",
                        std::to_string(done.step) + " steps in " + done.folder);
    context_.faults->Reached("durable");
  }
  context_.outbox.Send(peer.address, wire::CheckpointAck{done.step, context_.CheckpointsToKeep()});
  return Status::Ok();
}

}  // namespace thresher::broker
