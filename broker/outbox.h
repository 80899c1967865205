#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "common/net/socket.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// Frames to be sent. Send waits until everything journalled so far is written (Journal::Commit), so
// that nobody sees an effect that a death of the broker would undo. SendNow is for answers that
// depend on nothing in the journal. Order per peer is kept within each of the two. One owner.
class Outbox {
 public:
  using Item = std::pair<net::PeerAddress, wire::Message>;

  void Send(const net::PeerAddress& peer, wire::Message message) {
    after_commit_.emplace_back(peer, std::move(message));
  }
  void SendNow(const net::PeerAddress& peer, wire::Message message) {
    now_.emplace_back(peer, std::move(message));
  }
  // What may leave; `committed` says that the journal has nothing unwritten.
  std::vector<Item> Take(bool committed) {
    std::vector<Item> items(std::make_move_iterator(now_.begin()),
                            std::make_move_iterator(now_.end()));
    now_.clear();
    if (!committed) return items;
    for (Item& item : after_commit_) items.push_back(std::move(item));
    after_commit_.clear();
    return items;
  }
  const std::deque<Item>& after_commit() const { return after_commit_; }

 private:
  std::deque<Item> after_commit_;
  std::deque<Item> now_;
};

}  // namespace thresher::broker
