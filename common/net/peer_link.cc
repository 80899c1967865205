#include "common/net/peer_link.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/base/clock.h"
#include "common/wire/frame.h"
#include "common/wire/protocol_version.h"

namespace thresher::net {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kHelloEvery{1000};
constexpr milliseconds kPoll{200};
constexpr milliseconds kLastDrain{1000};

}  // namespace

PeerLink::PeerLink(PeerLinkOptions options, HelloMaker hello, HeartbeatMaker heartbeat,
                   MessageHandler on_message, FailureHandler on_failure)
    : options_(std::move(options)),
      make_hello_(std::move(hello)),
      make_heartbeat_(std::move(heartbeat)),
      on_message_(std::move(on_message)),
      on_failure_(std::move(on_failure)) {}

PeerLink::~PeerLink() {
  if (!task_.joinable()) return;
  task_.RequestStop();
  {
    std::lock_guard lock(mutex_);
    if (client_) client_->Wake();
  }
  task_.Join();
}

void PeerLink::Start() {
  task_ = sync::Task("link", [this](std::stop_token stop) { Run(stop); });
}

Status PeerLink::Post(const wire::Message& message) {
  // Here, so that a message that cannot travel is the caller's error.
  THRESHER_RETURN_IF_ERROR(wire::CheckFrameSize(message, options_.max_message_bytes));
  std::lock_guard lock(mutex_);
  backlog_.push_back(message);
  if (client_) client_->Wake();
  return Status::Ok();
}

void PeerLink::BeatSoon() {
  std::lock_guard lock(mutex_);
  beat_soon_ = true;
  if (client_) client_->Wake();
}

std::size_t PeerLink::Backlog() const {
  std::lock_guard lock(mutex_);
  return backlog_.size();
}

void PeerLink::DropBacklog() {
  std::lock_guard lock(mutex_);
  backlog_.clear();
}

Status PeerLink::Connect() {
  ClientOptions client;
  client.max_message_bytes = options_.max_message_bytes;
  client.endpoint = options_.endpoint;
  auto rendezvous = ReadRendezvous(options_.run_folder);
  if (client.endpoint.empty()) {
    if (!rendezvous.ok()) return rendezvous.status();
    if (rendezvous->endpoints.empty()) return DataLoss("rendezvous.json names no endpoint");
    client.endpoint = rendezvous->endpoints.front();
  }
  if (client.endpoint.starts_with("tcp://")) {
    auto keys = LoadOrCreateKeys(std::filesystem::path(options_.run_folder) / "keys");
    if (!keys.ok()) return keys.status();
    client.own_key = options_.role == wire::PeerRole::kActor     ? keys->actor
                     : options_.role == wire::PeerRole::kLearner ? keys->learner
                                                                 : keys->tool;
    client.server_public_key = keys->broker.public_key;
  }
  auto connected = Client::Connect(client);
  if (!connected.ok()) return connected.status();
  std::lock_guard lock(mutex_);
  client_ = std::move(connected).value();
  return Status::Ok();
}

Status PeerLink::SendMessage(const wire::Message& message) {
  auto frame = wire::EncodeFrame({options_.run_id, options_.incarnation, sequence_ + 1}, message,
                                 options_.max_message_bytes);
  if (!frame.ok()) return frame.status();
  THRESHER_RETURN_IF_ERROR(client_->Send(*std::move(frame)));
  ++sequence_;
  return Status::Ok();
}

void PeerLink::Drain() {
  while (welcomed_) {
    wire::Message message;
    {
      std::lock_guard lock(mutex_);
      if (backlog_.empty()) return;
      message = std::move(backlog_.front());
      backlog_.pop_front();
    }
    if (!SendMessage(message).ok()) {  // the queue is full: later
      std::lock_guard lock(mutex_);
      backlog_.push_front(std::move(message));
      return;
    }
  }
}

void PeerLink::HandleFrame(const SharedBytes& bytes) {
  if (auto spoken = wire::DecodeVersionRefusal(std::as_bytes(std::span(bytes)))) {
    Fail(PermissionDenied("the broker refused this process: it speaks protocol version " +
                          spoken->ToString() + ", this program " +
                          wire::kSpokenVersions.ToString()));
    return;
  }
  auto frame = wire::DecodeFrame(bytes, options_.max_message_bytes);
  if (!frame.ok()) return;
  // Whoever is at this address holds the broker's key, or the run's folder: its refusal counts,
  // also that of another run.
  if (auto* refused = std::get_if<wire::Refused>(&frame->message)) {
    Fail(PermissionDenied("the broker refused this process: " + refused->reason));
    return;
  }
  if (frame->envelope.run_id != options_.run_id) return;  // not from our broker
  last_heard_ = SystemClock().Now();
  if (std::holds_alternative<wire::Rejoin>(frame->message)) {
    // One for each frame that found no peer: the first Hello answers them all.
    if (std::exchange(welcomed_, false)) next_hello_ = last_heard_;
    return;
  }
  if (auto* welcome = std::get_if<wire::Welcome>(&frame->message)) {
    welcomed_ = true;
    if (welcome->heartbeat_ms > 0) heartbeat_every_ = milliseconds(welcome->heartbeat_ms);
    next_heartbeat_ = last_heard_;
  }
  const auto* beat = std::get_if<wire::HeartbeatAck>(&frame->message);
  if (beat != nullptr && beat->credit.number == 0) return;  // nothing new
  on_message_(std::move(frame->message));
}

void PeerLink::Fail(Status status) {
  if (std::exchange(failed_, true)) return;
  on_failure_(std::move(status));
}

// Everything that is due: reconnection, Hello, heartbeat.
void PeerLink::Tick(TimePoint now) {
  if (welcomed_ && now - last_heard_ > options_.silence) {
    welcomed_ = false;
    lost_since_ = now;
    std::lock_guard lock(mutex_);
    client_.reset();
  }
  if (!welcomed_ && now - std::max(last_heard_, lost_since_) > options_.patience) {
    Fail(DeadlineExceeded(
        "no broker answered at " +
        (options_.endpoint.empty() ? options_.run_folder + "/rendezvous.json" : options_.endpoint) +
        " for " + std::to_string(options_.patience.count() / 1000) + " s"));
    return;
  }
  if (!welcomed_ && now >= next_hello_) {
    next_hello_ = now + kHelloEvery;
    // A restarted broker may listen elsewhere: every second attempt begins with a new socket.
    if (client_ == nullptr || now - last_heard_ > options_.silence) {
      if (!Connect().ok()) return;
    }
    (void)SendMessage(make_hello_());
  }
  if (welcomed_ && (now >= next_heartbeat_ || beat_soon_)) {
    beat_soon_ = false;
    next_heartbeat_ = now + heartbeat_every_;
    (void)SendMessage(make_heartbeat_());
  }
}

void PeerLink::Run(std::stop_token stop) {
  lost_since_ = last_heard_ = SystemClock().Now();
  while (!stop.stop_requested() && !failed_) {
    TimePoint now = SystemClock().Now();
    Tick(now);
    if (client_ == nullptr) {
      sync::SleepFor(milliseconds(50));  // no rendezvous yet: nothing to wait on
      continue;
    }
    Drain();
    TimePoint due = welcomed_ ? next_heartbeat_ : next_hello_;
    auto wait = std::chrono::ceil<milliseconds>(due - now);  // rounded down it would spin
    if (auto bytes = client_->Receive(std::clamp(wait, milliseconds(0), kPoll)))
      HandleFrame(*bytes);
  }
  TimePoint end = SystemClock().Now() + kLastDrain;
  while (client_ != nullptr && welcomed_ && Backlog() > 0 && SystemClock().Now() < end) {
    Drain();
    (void)client_->Receive(milliseconds(5));
  }
}

}  // namespace thresher::net
