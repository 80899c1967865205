#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "common/base/shared_bytes.h"
#include "common/net/socket.h"

namespace thresher::broker {

// How many bytes of what peers asked for (leaves, chunks of weights) are on their way to them: from
// the answer to its bytes being freed by the socket, whose queues know no bytes. Who asks gets
// nothing while much is under way to it, or to all together, so that a peer that does not read
// costs no more than its part, until its connection ends. One owner; what Hold returned may be
// freed on any thread.
class Outgoing {
 public:
  // To one peer a sixteenth may be under way. It is looked at before an answer is made, so each
  // peer may have one answer more.
  explicit Outgoing(std::size_t limit_bytes) : limit_(limit_bytes) {}

  bool HasRoom(const net::PeerAddress& peer) const;
  // An answer of so many bytes waits to be sent; waits no longer.
  void Queue(const net::PeerAddress& peer, std::size_t bytes);
  void Unqueue(const net::PeerAddress& peer, std::size_t bytes);
  // The same bytes; under way until the last that shares them frees them.
  SharedBytes Hold(const net::PeerAddress& peer, std::string frame);

  std::size_t bytes() const { return queued_ + held_->load(); }
  std::size_t limit() const { return limit_; }

 private:
  using Counter = std::shared_ptr<std::atomic<std::size_t>>;
  struct Account {
    std::size_t queued = 0;
    Counter held = std::make_shared<std::atomic<std::size_t>>(0);
    std::size_t bytes() const { return queued + held->load(); }
  };
  struct Held;
  // Forgets peers to which nothing is under way.
  void Tidy();

  std::size_t limit_;
  std::map<net::PeerAddress, Account> accounts_;
  std::size_t tidy_at_ = 64;  // accounts
  std::size_t queued_ = 0;
  Counter held_ = std::make_shared<std::atomic<std::size_t>>(0);
};

}  // namespace thresher::broker
