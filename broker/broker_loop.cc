#include "broker/broker_loop.h"

#include <algorithm>
#include <utility>

#include "broker/metrics_report.h"
#include "broker/partial_log.h"
#include "common/wire/protocol_version.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kIdleWait{20};         // longest wait for a frame: ticks need the thread
constexpr milliseconds kLongestPass{100};     // beyond a group's time: when nothing holds it up
constexpr milliseconds kCommitAgain{500};     // while the disk refuses
constexpr milliseconds kWriterPatience{100};  // then the loop looks at its peers again
constexpr std::chrono::seconds kKeepAgain{10};
constexpr std::size_t kLargeFrame = 64u << 10;    // heartbeats and requests are heard in any case
constexpr std::size_t kMovedAtOnce = 256u << 10;  // bytes of prefixes
constexpr milliseconds kTallyEvery{1000};         // as heartbeats
constexpr milliseconds kDrainPatience{30000};     // a learner may be in a long step
constexpr milliseconds kGoodbyePatience{5000};
constexpr milliseconds kFinishedLinger{3000};  // restarted after the end: who waits hears of it

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;  // Clang 16, which builds the fuzz targets, needs it said

// Whether handling the message may write journal records.
bool NeedsJournal(const wire::Message& message) {
  return std::holds_alternative<wire::Upload>(message) ||
         std::holds_alternative<wire::SampleFailed>(message) ||
         std::holds_alternative<wire::StepDone>(message) ||
         std::holds_alternative<wire::CheckpointDone>(message) ||
         std::holds_alternative<wire::Publish>(message) ||
         std::holds_alternative<wire::Chunk>(message);
}

// Whether the message lets its receiver forget what it sent.
bool IsAck(const wire::Message& message) {
  return std::holds_alternative<wire::UploadAck>(message) ||
         std::holds_alternative<wire::Consumed>(message) ||
         std::holds_alternative<wire::StepAck>(message) ||
         std::holds_alternative<wire::PublishAck>(message) ||
         std::holds_alternative<wire::CheckpointAck>(message);
}

const char* FaultCounter(StatusCode code) {
  switch (code) {
    case StatusCode::kOutOfRange:
      return "frames_oversized";
    case StatusCode::kDataLoss:
      return "frames_damaged";
    default:
      return "frames_malformed";
  }
}

}  // namespace

int BrokerLoop::Run() {
  while (!abandoned_.load()) {
    Status status = Pass();
    if (!status.ok()) {
      Fail(status);
      return kFailed;
    }
    if (mode_ == Mode::kRunning) continue;
    bool over = context_->Now() >= deadline_ ||
                (sessions_.Remaining() == 0 && context_->Now() >= linger_until_);
    if (!over) continue;
    next_tally_ = {};
    KeepTally();  // with what the last ones to leave said
    const bool written = CommitAll();
    SendWaiting();  // what was written is answered, also when something after it could not be
    if (written) {
      Status indexed = context_->journal->WriteIndex();
      if (!indexed.ok()) {
        context_->events.Add(EventLevel::kWarning, "index", indexed.ToString());
      }
      return exit_code_;
    }
  }
  return kFailed;
}

// A loop that takes longer than it does was held up: by a disk, or because the process did not run.
// Who spoke meanwhile waits in the socket, and is not silent.
void BrokerLoop::NoteDelay() {
  const TimePoint now = context_->Now();
  const Duration longest = kLongestPass + milliseconds(context_->config.journal.group_commit_ms);
  if (last_look_ != TimePoint{} && now - last_look_ > longest) {
    context_->deaf += now - last_look_ - longest;
    const std::chrono::duration<double> seconds = now - last_look_;
    context_->metrics.Count("held_up_seconds", seconds.count());
  }
  last_look_ = now;
}

Status BrokerLoop::Pass() {
  THRESHER_RETURN_IF_ERROR(ReceiveSome());
  NoteDelay();
  THRESHER_RETURN_IF_ERROR(Tick());
  Commit();
  SendWaiting();
  THRESHER_RETURN_IF_ERROR(EnterMode());
  if (tidier_.busy()) {
    if (const auto tidied = tidier_.Take(Duration::zero())) OnKept(*tidied);
  }
  context_->payloads.Settle();
  if (context_->Now() >= next_status_) UpdateStatus();
  return Status::Ok();
}

Status BrokerLoop::ReceiveSome() {
  const JournalConfig& journal = context_->config.journal;
  while (context_->paused.empty() && !Congested() && !deferred_.empty()) {
    THRESHER_RETURN_IF_ERROR(HandleDeferred());
  }
  TimePoint begin = context_->Now();
  pass_is_full_ = false;
  for (milliseconds wait = kIdleWait;; wait = milliseconds(0)) {
    std::optional<net::Received> received = server_->Receive(wait);
    if (!received) return Status::Ok();
    THRESHER_RETURN_IF_ERROR(HandleFrame(*received, /*deferred=*/false));
    bool full = pass_is_full_ || context_->journal->pending_bytes() >=
                                     static_cast<std::size_t>(journal.group_commit_bytes);
    if (full || context_->Now() - begin >= milliseconds(journal.group_commit_ms)) break;
  }
  return Status::Ok();
}

Status BrokerLoop::HandleDeferred() {
  const Deferred frame = std::move(deferred_.front());
  deferred_.pop_front();
  deferred_bytes_ -= frame.received.bytes.size();
  bool heard = false;
  const Status status = HandleFrame(frame.received, /*deferred=*/true, &heard);
  // Whoever sent it has left meanwhile.
  if (frame.upload && !heard) {
    context_->admission.NoteDropped(frame.upload->first, frame.upload->second);
  }
  return status;
}

Status BrokerLoop::HandleFrame(const net::Received& received, bool deferred, bool* heard) {
  NoteDelay();
  Metrics& metrics = context_->metrics;
  metrics.Count("frames_received");
  if (!deferred && received.bytes.size() > kLargeFrame && uploads_.Floods(received.peer)) {
    metrics.Count("frames_of_floods");
    return Status::Ok();
  }
  Result<wire::DecodedFrame> frame = wire::DecodeFrame(
      received.bytes, static_cast<std::size_t>(context_->config.broker.max_message_bytes));
  if (!frame.ok()) {
    std::optional<std::uint16_t> version =
        wire::VersionOf(std::as_bytes(std::span(received.bytes)));
    if (version && !wire::Speaks(*version)) {
      sessions_.OnOtherVersion(*version);
      (void)server_->Send(received.peer, wire::EncodeVersionRefusal(wire::kSpokenVersions)).ok();
    } else {
      metrics.Count(FaultCounter(frame.status().code()));
    }
    return Status::Ok();
  }
  const wire::Envelope& envelope = frame->envelope;
  const auto* hello = std::get_if<wire::Hello>(&frame->message);
  if (envelope.run_id != run_id_) {
    metrics.Count("frames_foreign");
    if (hello != nullptr) context_->outbox.SendNow(received.peer, wire::Refused{"another run"});
    return Status::Ok();
  }
  if (hello != nullptr) {
    return sessions_.OnHello(*hello, received.peer, envelope.incarnation, received.key_user_id);
  }
  Peer* peer = nullptr;
  PeerTable::Sender sender = context_->peers.Identify(received.peer, envelope.incarnation,
                                                      context_->ListeningTime(), &peer);
  if (sender != PeerTable::Sender::kKnown) {
    sessions_.OnStranger(sender, received.peer);
    return Status::Ok();
  }
  if (heard != nullptr) *heard = true;
  const auto* upload = std::get_if<wire::Upload>(&frame->message);
  const bool actor = peer->role == wire::PeerRole::kActor;
  if (upload != nullptr && actor && !deferred && !uploads_.Admit(*peer, *upload)) {
    pass_is_full_ = true;
    return Status::Ok();
  }
  if ((!context_->paused.empty() || Congested()) && NeedsJournal(frame->message)) {
    Defer(*peer, received, actor ? upload : nullptr);
    return Status::Ok();
  }
  return Dispatch(*peer, frame->message);
}

// Whoever gets no answer asks again, for as long as it takes: what has no room is not lost.
void BrokerLoop::Defer(const Peer& peer, const net::Received& received,
                       const wire::Upload* upload) {
  const ActorId actor(peer.index);
  if (deferred_bytes_ + received.bytes.size() > context_->memory.credit) {
    context_->metrics.Count("frames_dropped_paused");
    if (upload != nullptr) context_->admission.NoteDropped(actor, upload->upload);
    return;
  }
  deferred_bytes_ += received.bytes.size();
  deferred_.push_back({received, std::nullopt});
  if (upload != nullptr) deferred_.back().upload = {actor, upload->upload};
}

Status BrokerLoop::Dispatch(Peer& peer, const wire::Message& message) {
  bool actor = peer.role == wire::PeerRole::kActor;
  bool learner = peer.role == wire::PeerRole::kLearner;
  auto unexpected = [&] {
    context_->metrics.Count("frames_unexpected");
    return Status::Ok();
  };
  return std::visit(
      Overloaded{
          [&](const wire::Heartbeat& m) { return heartbeats_.OnHeartbeat(peer, m), Status::Ok(); },
          [&](const wire::Goodbye& m) { return sessions_.OnGoodbye(peer, m), Status::Ok(); },
          [&](const wire::LeaseRequest& m) {
            return actor ? (leases_.OnLeaseRequest(peer, m), Status::Ok()) : unexpected();
          },
          [&](const wire::LeaseRelease& m) {
            return actor ? (leases_.OnLeaseRelease(peer, m), Status::Ok()) : unexpected();
          },
          [&](const wire::Upload& m) {
            if (!actor) return unexpected();
            bool wanted = false;
            Status status = uploads_.OnUpload(peer, m, &wanted);
            pass_is_full_ |= !wanted;
            return status;
          },
          [&](const wire::SampleFailed& m) {
            return actor ? uploads_.OnSampleFailed(peer, m) : unexpected();
          },
          [&](const wire::FetchLeaf& m) {
            return learner ? learner_.OnFetchLeaf(peer, m) : unexpected();
          },
          [&](const wire::RanksMeet& m) {
            return learner ? (learner_.OnRanksMeet(peer, m), Status::Ok()) : unexpected();
          },
          [&](const wire::StepDone& m) {
            return learner ? learner_.OnStepDone(peer, m) : unexpected();
          },
          [&](const wire::CheckpointDone& m) {
            return learner ? learner_.OnCheckpointDone(peer, m) : unexpected();
          },
          [&](const wire::Publish& m) {
            return learner ? weights_.OnPublish(peer, m) : unexpected();
          },
          [&](const wire::Chunk& m) { return learner ? weights_.OnChunk(peer, m) : unexpected(); },
          [&](const wire::ManifestGet& m) {
            return weights_.ServeManifest(peer.address, m), Status::Ok();
          },
          [&](const wire::ChunkGet& m) { return weights_.OnChunkGet(peer, m), Status::Ok(); },
          [&](const auto&) { return unexpected(); },  // what only a broker says
      },
      message);
}

Status BrokerLoop::Tick() {
  if (!context_->paused.empty()) return Status::Ok();
  THRESHER_RETURN_IF_ERROR(weights_.Tick());
  THRESHER_RETURN_IF_ERROR(driver_.Advance());
  heartbeats_.Tick();
  THRESHER_RETURN_IF_ERROR(leases_.Tick());
  KeepTally();
  uploads_.TellConsumed();
  return learner_.Tick();
}

// One group is written at a time; the next one is all that was recorded meanwhile. Where that has
// grown to a whole group the loop waits, so that what is received is bounded by what is written.
void BrokerLoop::Commit() {
  Journal& journal = *context_->journal;
  if (writer_.busy()) {
    const auto whole = static_cast<std::size_t>(context_->config.journal.group_commit_bytes);
    const bool wait = context_->paused.empty() && journal.pending_bytes() >= whole;
    if (!TakeWritten(wait ? kWriterPatience : milliseconds(0)) || writer_.busy()) return;
  }
  if (!context_->paused.empty() && context_->Now() < next_commit_) return;
  if (!journal.sealed()) SealGroup();
  if (journal.sealed()) writer_.Begin([&journal] { return journal.Write(); });
}

// False: what the writer does goes on.
bool BrokerLoop::TakeWritten(Duration timeout) {
  const std::optional<Status> outcome = writer_.Take(timeout);
  if (!outcome) return false;
  if (std::exchange(snapshotting_, false)) {
    OnKept(*outcome);
  } else {
    OnWritten(*outcome);
  }
  return true;
}

// What is to be sent goes with the records before it; where there are none it may leave at once.
void BrokerLoop::SealGroup() {
  context_->outbox.Seal();
  if (context_->Now() >= next_keeping_ && !tidier_.busy()) {
    keeper_.Seal(*context_->journal, context_->state);
  }
  context_->admission.Seal();
  sealed_version_ = context_->state.NewestPublished();
  SealPartials();
  weights_.OnSeal();
  if (context_->journal->dirty()) {
    context_->journal->Seal();
  } else {
    OnWritten(Status::Ok());
  }
}

void BrokerLoop::OnWritten(const Status& status) {
  if (!status.ok()) {
    Pause(status);
    return;
  }
  if (context_->journal->sealed()) {
    context_->payloads.NoteStored(context_->journal->Finish());
    context_->partials.NoteWritten(context_->journal->FinishPartials());
  }
  context_->admission.HandOn();
  if (!context_->paused.empty()) {
    context_->events.Add(EventLevel::kInfo, "resumed", "the journal can be written again");
    context_->paused.clear();
    driver_.NoteWork();
  }
  context_->visible_version = sealed_version_;
  context_->outbox.Release();
  weights_.OnWritten();
  KeepJournal();
}

// When nothing is being written. A snapshot needs the journal to itself, so the writer takes it; it
// is of the state as it was sealed, so nothing comes before it.
void BrokerLoop::KeepJournal() {
  if (context_->Now() < next_keeping_ || tidier_.busy()) return;
  Journal& journal = *context_->journal;
  if (keeper_.sealed()) {
    snapshotting_ = true;
    writer_.Begin([this, &journal] { return keeper_.TakeSnapshot(journal); });
  } else if (journal.keeps_partials() && TidyPartials()) {
    return;
  } else if (keeper_.untidy()) {
    tidier_.Begin([this, end = journal.end(), store_end = journal.store_end()] {
      return keeper_.Tidy(end, store_end);
    });
  }
}

void BrokerLoop::KeepTally() {
  if (!context_->journal->keeps_partials() || context_->Now() < next_tally_) return;
  next_tally_ = context_->Now() + kTallyEvery;
  std::string tally = context_->tally.Encode();
  if (tally == last_tally_) return;
  last_tally_ = tally;
  context_->journal->KeepTally(std::move(tally));
}

// Needed is what somebody needs now (what left before the group did so for a record that is in it,
// or before it), and where the group itself will lie.
void BrokerLoop::SealPartials() {
  if (!context_->journal->keeps_partials()) return;
  partials_needed_ = std::min(context_->partials.OldestSegment().value_or(UINT32_MAX),
                              context_->journal->partials_end().position.segment);
}

// Whether the tidier has something to do with it. The last two segments stay (record_log.h).
bool BrokerLoop::TidyPartials() {
  const std::uint32_t last = context_->journal->partials_end().position.segment;
  const std::uint32_t stay = last - std::min(last, 1u);
  const std::uint32_t begin = std::min(partials_needed_, stay);
  if (begin > partials_begin_ && context_->journal->tally_segment() < begin) {
    next_tally_ = {};  // the newest one lies in what leaves, or nowhere: again first
    last_tally_.clear();
    return false;
  }
  if (begin > partials_begin_) {
    partials_begin_ = begin;
    tidier_.Begin([folder = PartialsFolder(context_->run), begin] {
      return DeleteSegmentsBefore(folder, begin);
    });
    return true;
  }
  const auto segment = static_cast<std::uint64_t>(context_->config.journal.segment_bytes);
  const std::uint64_t held = (last - begin) * segment;
  if (begin < stay && held > 2 * context_->partials.bytes() + 2 * segment) MovePartials(begin);
  return false;
}

// What is still needed of an old segment is written anew, about a group's bytes at a time: no
// credit counts them.
void BrokerLoop::MovePartials(std::uint32_t segment) {
  constexpr std::size_t kAtOnce = 16;
  std::size_t moved = 0;
  for (const TrajectoryId& id : context_->partials.In(segment, kAtOnce)) {
    const Partials::Kept kept = *context_->partials.Find(id);
    if (!kept.unwritten.empty())
      return;  // those before are not written yet, or a longer one is to be
    if (moved > 0 && moved + kept.bytes > kMovedAtOnce) return;
    moved += kept.bytes;
    Result<std::string> bytes = ReadPartial(context_->run, kept.place);
    if (!bytes.ok()) {
      context_->LosePartial(id, bytes.status());
      continue;
    }
    const SharedBytes shared(*std::move(bytes));
    const std::uint64_t number = context_->partials.Put(id, {kept.tokens, kept.numerics}, shared);
    context_->journal->Keep(id, number, shared);
    context_->metrics.Count("partials_moved");
  }
}

// What fails here costs the next start time, and the disk space; nothing is lost.
void BrokerLoop::OnKept(const Status& status) {
  context_->metrics.Set("journal_snapshots", static_cast<double>(keeper_.snapshots()));
  if (status.ok()) return;
  next_keeping_ = context_->Now() + kKeepAgain;
  context_->events.Add(EventLevel::kWarning, "journal_keeping", status.ToString());
}

// With journal.mode off what is answered has nothing to wait for: it is in the cache.
void BrokerLoop::HandOnAnswered() {
  if (!context_->config.journal.off()) return;
  context_->admission.Seal();
  context_->admission.HandOn();
}

// Waits until everything recorded is written; false when that cannot be now.
bool BrokerLoop::CommitAll() {
  next_commit_ = {};
  while (true) {
    Commit();
    if (!writer_.busy()) return context_->paused.empty();
    if (TakeWritten(kWriterPatience) && !context_->paused.empty()) return false;
  }
}

// Whether two groups and more wait for a disk that is slow or stuck.
bool BrokerLoop::Congested() const {
  const auto whole = static_cast<std::size_t>(context_->config.journal.group_commit_bytes);
  return writer_.busy() && context_->journal->pending_bytes() >= 2 * whole;
}

void BrokerLoop::Pause(const Status& why) {
  next_commit_ = context_->Now() + kCommitAgain;
  if (context_->paused.empty()) {
    context_->metrics.Count("pauses");
    context_->events.Add(EventLevel::kAlarm, "paused", why.ToString());
  }
  context_->paused = why.ToString();
}

void BrokerLoop::SendWaiting() {
  std::size_t limit = static_cast<std::size_t>(context_->config.broker.max_message_bytes);
  context_->outbox.Take(sending_);
  for (const Outbox::Item& item : sending_) {
    const std::size_t payload = PayloadBytes(item.second);
    if (payload > 0) context_->outgoing.Unqueue(item.first, payload);
    wire::Envelope envelope{run_id_, incarnation_, ++sequence_};
    Result<std::string> frame = wire::EncodeFrame(envelope, item.second, limit);
    if (!frame.ok()) {
      context_->metrics.Count("frames_too_large_to_send");
      context_->events.Add(
          EventLevel::kAlarm, "too_large",
          std::string(wire::MessageName(item.second)) + ": " + frame.status().ToString());
      continue;
    }
    const bool ack = IsAck(item.second);
    if (ack) context_->faults->Reached("before_ack");
    SharedBytes bytes = payload > 0 ? context_->outgoing.Hold(item.first, *std::move(frame))
                                    : SharedBytes(*std::move(frame));
    Status sent = server_->Send(item.first, std::move(bytes));
    // A peer that is gone asks again when it is back: every request is idempotent.
    context_->metrics.Count(sent.ok() ? "frames_sent" : "frames_not_sent");
    if (ack) context_->faults->Reached("after_ack");
  }
  sending_.clear();  // payloads among them
  HandOnAnswered();
}

void BrokerLoop::UpdateStatus() {
  const TimePoint begun = context_->Now();
  if (server_ != nullptr) {
    context_->metrics.Set("messages_refused", static_cast<double>(server_->malformed()));
    context_->metrics.Set("handshakes_refused", static_cast<double>(server_->refused()));
  }
  context_->metrics.Set("frames_deferred", static_cast<double>(deferred_.size()));
  context_->metrics.Set("frames_deferred_bytes", static_cast<double>(deferred_bytes_));
  std::string json = StatusJson(*context_, learner_.last_metrics());
  board_.Put(std::move(json), PrometheusText(*context_));
  next_status_ = begun + StatusInterval(context_->Now() - begun);
}

Status BrokerLoop::EnterMode() {
  if (mode_ == Mode::kClosing || !context_->paused.empty()) return Status::Ok();
  if (context_->state.finished()) {
    if (context_->journal->dirty()) return Status::Ok();  // not before its record is written
    std::string summary = SummaryJson(*context_, learner_.last_metrics()) + "\n";
    Status written = WriteFileAtomic(context_->run / "summary.json", summary);
    if (written.ok()) {
      BeginClosing();
    } else {
      Pause(written);
    }
  } else if (stop_requested_.load() && mode_ == Mode::kRunning) {
    BeginDraining();
  }
  return Status::Ok();
}

void BrokerLoop::BeginDraining() {
  mode_ = Mode::kDraining;
  exit_code_ = kStopped;
  context_->draining = true;
  deadline_ = context_->Now() + kDrainPatience;
  context_->events.Add(EventLevel::kInfo, "stopping", "asked to stop: draining");
  sessions_.ShutdownAll("stopping", /*checkpoint_first=*/true);
}

void BrokerLoop::BeginClosing() {
  mode_ = Mode::kClosing;
  exit_code_ = kDone;
  TimePoint now = context_->Now();
  deadline_ = now + kGoodbyePatience;
  if (was_finished_) linger_until_ = now + kFinishedLinger;
  context_->events.Add(EventLevel::kInfo, "finished",
                       Ledger::Equation(context_->state.ledger().Total()));
  sessions_.ShutdownAll("finished", /*checkpoint_first=*/false);
  UpdateStatus();
}

void BrokerLoop::Fail(const Status& why) {
  failure_ = why.ToString();
  context_->events.Add(EventLevel::kAlarm, "failed", failure_);
  sessions_.ShutdownAll("failed: " + failure_, /*checkpoint_first=*/false);
  (void)CommitAll();
  SendWaiting();
  UpdateStatus();
}

}  // namespace thresher::broker
