#pragma once

#include <cstddef>
#include <deque>
#include <iterator>
#include <utility>
#include <variant>
#include <vector>

#include "common/net/socket.h"
#include "common/wire/messages.h"

namespace thresher::broker {

// Of what a peer asked for, its payload; the rest of a message is small.
inline std::size_t PayloadBytes(const wire::Message& message) {
  if (const auto* chunk = std::get_if<wire::Chunk>(&message)) return chunk->bytes.size();
  const auto* part = std::get_if<wire::LeafPart>(&message);
  std::size_t bytes = 0;
  for (std::size_t i = 0; part != nullptr && i < part->records.size(); ++i) {
    bytes += part->records[i].size();
  }
  return bytes;
}

// Frames to be sent. Send waits until everything journalled so far is written, so that nobody sees
// an effect that a death of the broker would undo: Seal when a group of records is sealed, Release
// when it is written. SendNow is for answers that depend on nothing in the journal. Order per peer
// is kept within each of the two. One owner.
class Outbox {
 public:
  using Item = std::pair<net::PeerAddress, wire::Message>;

  void Send(const net::PeerAddress& peer, wire::Message message) {
    after_commit_.emplace_back(peer, std::move(message));
  }
  void SendNow(const net::PeerAddress& peer, wire::Message message) {
    now_.emplace_back(peer, std::move(message));
  }
  // What waits until now belongs to the sealed group; what comes later to one after it.
  void Seal() { sealed_ = after_commit_.size(); }
  // What was sealed may leave.
  void Release() {
    for (; sealed_ > 0; --sealed_) {
      now_.push_back(std::move(after_commit_.front()));
      after_commit_.pop_front();
    }
  }
  // What may leave.
  std::vector<Item> Take() {
    std::vector<Item> items(std::make_move_iterator(now_.begin()),
                            std::make_move_iterator(now_.end()));
    now_.clear();
    return items;
  }
  const std::deque<Item>& after_commit() const { return after_commit_; }

 private:
  std::deque<Item> after_commit_;
  std::size_t sealed_ = 0;  // of after_commit_, the first
  std::deque<Item> now_;
};

}  // namespace thresher::broker
