#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <zmq.hpp>

#include "common/base/shared_bytes.h"
#include "common/base/status.h"

namespace thresher::net {

// Pieces that Server, Client and the ZAP handler share.

// Wakes a poll from another thread. Wake is thread-safe and may be called from a signal handler.
class WakeEvent {
 public:
  WakeEvent();
  ~WakeEvent();
  WakeEvent(const WakeEvent&) = delete;
  WakeEvent& operator=(const WakeEvent&) = delete;
  void Wake();
  // True when Wake was called since the last Drain.
  bool Drain();
  int fd() const { return fd_; }

 private:
  int fd_;
};

// Waits for input on any of the items; false when the deadline passed. Interrupted by signals only
// to wait on.
bool PollUntil(zmq::pollitem_t* items, std::size_t count,
               std::chrono::steady_clock::time_point deadline);

// Options of both ends: high-water marks, size backstop, keep-alive, handshake limit, IPv6.
void SetCommonOptions(zmq::socket_t& socket, const std::string& endpoint, int high_water_mark,
                      std::size_t max_message_bytes);

// Receives the next part; nothing when none waits. Interruptions are retried.
bool ReceivePart(zmq::socket_t& socket, zmq::message_t& part);

// The message as bytes that keep it; nothing is copied.
SharedBytes Share(zmq::message_t&& message);

// Sends the last part of a message, without waiting; long ones from where they lie. False, with
// zmq_errno(), when it was not sent.
bool SendPart(zmq::socket_t& socket, SharedBytes bytes);

// kOutOfRange when `bytes` is longer than `max_bytes`.
Status CheckMessageSize(std::string_view bytes, std::size_t max_bytes);

bool IsTcp(const std::string& endpoint);
bool IsIpc(const std::string& endpoint);

}  // namespace thresher::net
