#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/net/socket.h"
#include "common/sync/task.h"
#include "common/wire/messages.h"

namespace thresher::net {

// A peer's side of its conversation with the broker, shared by actors and learner ranks: one I/O
// thread owns the socket, says Hello, sends heartbeats whatever the rest of the process is doing,
// rejoins after the broker or the connection died, and hands every other message to `on_message`.
//
// Delivery: frames posted while no broker knows us wait and are sent after the next Welcome; frames
// lost with a connection are not resent here. The owner resends what was not answered when it
// sees the next Welcome, which is why every request is idempotent.
struct PeerLinkOptions {
  // RUN directory: rendezvous.json is read again before every (re)connection.
  std::string run_folder;
  // Overrides the rendezvous ("tcp://host:port"); needs the keys in RUN/keys.
  std::string endpoint;
  wire::PeerRole role = wire::PeerRole::kActor;
  Hash128 run_id;
  Incarnation incarnation;
  std::size_t max_message_bytes = 8u << 20;
  // How long to look for a broker before giving up, at the start and after losing it.
  std::chrono::milliseconds patience{120000};
  // Silence after which the connection is taken for dead and made anew.
  std::chrono::milliseconds silence{5000};
};

class PeerLink {
 public:
  using HelloMaker = std::function<wire::Hello()>;          // called on the I/O thread
  using HeartbeatMaker = std::function<wire::Heartbeat()>;  // called on the I/O thread
  using MessageHandler =
      std::function<void(wire::Message)>;  // called on the I/O thread; no blocking
  // The link is over: the broker refused us or the protocol version that we speak
  // (kPermissionDenied), or could not be reached within `patience` (kDeadlineExceeded naming the
  // endpoint). Called once, on the I/O thread.
  using FailureHandler = std::function<void(Status)>;

  PeerLink(PeerLinkOptions options, HelloMaker hello, HeartbeatMaker heartbeat,
           MessageHandler on_message, FailureHandler on_failure);
  // Stops and joins; posted frames get up to a second to leave.
  ~PeerLink();
  PeerLink(const PeerLink&) = delete;
  PeerLink& operator=(const PeerLink&) = delete;

  void Start();
  // Thread-safe, never blocks. Error: kOutOfRange (larger than a frame may be).
  Status Post(const wire::Message& message);
  // The next heartbeat is due now: it says something that the broker waits for. Thread-safe.
  void BeatSoon();
  // Frames posted and not yet handed to the socket.
  std::size_t Backlog() const;
  // Forgets frames posted and not yet sent (their answers would come twice).
  void DropBacklog();

 private:
  void Run(std::stop_token stop);
  Status Connect();
  Status SendMessage(const wire::Message& message);
  void HandleFrame(const SharedBytes& bytes);
  void Tick(TimePoint now);
  void Drain();
  void Fail(Status status);

  PeerLinkOptions options_;
  HelloMaker make_hello_;
  HeartbeatMaker make_heartbeat_;
  MessageHandler on_message_;
  FailureHandler on_failure_;

  mutable std::mutex mutex_;  // guards the four below
  std::deque<wire::Message> backlog_;
  std::unique_ptr<Client> client_;  // used by the I/O thread; Wake from any
  std::atomic<bool> beat_soon_{false};

  // I/O thread only.
  bool welcomed_ = false;
  bool failed_ = false;
  std::uint64_t sequence_ = 0;
  std::chrono::milliseconds heartbeat_every_{1000};
  TimePoint last_heard_{}, next_hello_{}, next_heartbeat_{}, lost_since_{};
  sync::Task task_;
};

}  // namespace thresher::net
